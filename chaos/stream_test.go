package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	streamName    = "CHAOS"
	streamSubject = "durable.chaos"
)

// store is the stream, seen from a client without a proxy.
type store struct {
	nc *nats.Conn
	js jetstream.JetStream
}

func openStore(t testing.TB, servers []*natsd) *store {
	t.Helper()
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.url())
	}
	nc, err := nats.Connect(strings.Join(urls, ","), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.PingInterval(500*time.Millisecond), nats.MaxPingsOutstanding(2),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s := &store{nc, js}
	if err := eventually(s.create); err != nil {
		t.Fatalf("creating the stream: %v", err)
	}
	return s
}

func (s *store) create() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: streamName, Subjects: []string{streamSubject}, Storage: jetstream.FileStorage, Replicas: 3,
	})
	return err
}

// whole returns the stream when it has a leader and all replicas have the same.
func (s *store) whole(ctx context.Context) (jetstream.Stream, *jetstream.StreamInfo, error) {
	stream, err := s.js.Stream(ctx, streamName)
	if err != nil {
		return nil, nil, err
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return nil, nil, err
	}
	if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != 2 {
		return nil, nil, fmt.Errorf("the stream has no leader, or not all replicas: %+v", info.Cluster)
	}
	for _, r := range info.Cluster.Replicas {
		if !r.Current || r.Offline {
			return nil, nil, fmt.Errorf("replica %s is behind: %+v", r.Name, *r)
		}
	}
	return stream, info, nil
}

// contents returns how often each id is stored, and empties the stream.
func (s *store) contents() (stored map[uint64]int, err error) {
	err = eventually(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		stream, info, err := s.whole(ctx)
		if err != nil {
			return err
		}
		if stored, err = readAll(ctx, stream, info.State.Msgs); err != nil {
			return err
		}
		return stream.Purge(ctx)
	})
	return stored, err
}

func readAll(ctx context.Context, stream jetstream.Stream, messages uint64) (map[uint64]int, error) {
	stored := map[uint64]int{}
	if messages == 0 {
		return stored, nil
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	all, err := consumer.Messages()
	if err != nil {
		return nil, err
	}
	defer all.Stop()
	for range messages {
		m, err := all.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, err
		}
		id, ok := idOf(m.Data())
		if !ok {
			return nil, fmt.Errorf("a message that nobody sent is stored: %.40q", m.Data())
		}
		stored[id]++
	}
	return stored, nil
}

// stepDown makes the stream elect another leader.
func (s *store) stepDown() error {
	reply, err := s.nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+streamName, nil, time.Second)
	if err == nil && !strings.Contains(string(reply.Data), `"success":true`) {
		err = errors.New(string(reply.Data))
	}
	return err
}
