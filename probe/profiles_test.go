package probe

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// readProfile unpacks a profile, which fails for one that was cut short.
func readProfile(t *testing.T, a answer) string {
	t.Helper()
	packed, err := gzip.NewReader(strings.NewReader(a.body))
	if err != nil {
		t.Fatalf("%d, %.100q: %v", a.code, a.body, err)
	}
	text, err := io.ReadAll(packed)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Goal: without the option there are no profiles, and the answer says how to get them.
func TestProfilesAreOff(t *testing.T) {
	server := serve(t, &state{})
	for _, path := range []string{"", "heap", "profile", "cmdline"} {
		if a := do(t, server, http.MethodGet, profilesPath+path); a.code != http.StatusNotFound || !strings.Contains(a.body, "--pprof") {
			t.Errorf("%s: %d %s", path, a.code, a.body)
		}
	}
	if a := do(t, server, http.MethodGet, "/nothing"); strings.Contains(a.body, "pprof") {
		t.Errorf("profiles are listed: %s", a.body)
	}
}

// Goal: each profile of the index is there, the command line is not, and wrong requests are told what is wrong.
func TestProfiles(t *testing.T) {
	server := serve(t, &state{}, WithProfiles(false))
	index := do(t, server, http.MethodGet, profilesPath)
	for _, path := range []string{"allocs", "heap", "goroutine", "threadcreate", "allocs?seconds=1", "mutex?seconds=1", "block?seconds=1&rate=1"} {
		name, _, _ := strings.Cut(path, "?")
		if !strings.Contains(index.body, "\n"+name+" ") {
			t.Errorf("the index lacks %s", name)
		}
		readProfile(t, do(t, server, http.MethodGet, profilesPath+path))
	}
	if a := do(t, server, http.MethodGet, profilesPath+"trace?seconds=0.1"); !strings.HasPrefix(a.body, "go 1.") {
		t.Errorf("trace: %d %.100q", a.code, a.body)
	}
	for path, want := range map[string]int{
		"cmdline": http.StatusNotFound, "symbol": http.StatusNotFound, "no": http.StatusNotFound, "heap/": http.StatusNotFound,
		"profile?seconds=x": http.StatusBadRequest, "profile?seconds=0": http.StatusBadRequest, "trace?seconds=NaN": http.StatusBadRequest,
		"profile?seconds=0.5": http.StatusBadRequest, "allocs?seconds=1.5": http.StatusBadRequest, "mutex?seconds=1e1": http.StatusBadRequest,
		"profile?seconds=601": http.StatusBadRequest, "mutex?rate=0": http.StatusBadRequest, "block?rate=often": http.StatusBadRequest,
	} {
		if a := do(t, server, http.MethodGet, profilesPath+path); a.code != want {
			t.Errorf("%s: %d %s, want %d", path, a.code, a.body, want)
		}
	}
	if a := do(t, server, http.MethodPost, profilesPath+"heap"); a.code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", a.code)
	}
	if a := do(t, server, http.MethodGet, "/nothing"); !strings.Contains(a.body, profilesPath) {
		t.Errorf("profiles are not listed: %s", a.body)
	}
}

// Goal: a page from elsewhere, whose name was made to resolve to loopback, reads no profiles, unless anyone may.
func TestProfilesAreForThisMachine(t *testing.T) {
	for anyone, want := range map[bool]int{false: http.StatusForbidden, true: http.StatusOK} {
		server := serve(t, &state{}, WithProfiles(anyone))
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+profilesPath, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = "example.org:8080"
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("anyone %v: %d, want %d", anyone, response.StatusCode, want)
		}
	}
}

// Goal: a capture takes as long as it was told to, however short the server's other bounds are, and a mutex profile shows
// who held the lock.
func TestProfileOutlastsTimeouts(t *testing.T) {
	server := httptest.NewUnstartedServer(NewHandler(&state{}, WithProfiles(false)))
	server.Config.ReadTimeout, server.Config.WriteTimeout = time.Second, time.Second
	server.Start()
	t.Cleanup(server.Close)

	var busy sync.WaitGroup
	defer busy.Wait()
	stop := make(chan struct{})
	defer close(stop)
	var lock sync.Mutex
	for range 2 {
		busy.Go(func() { contend(&lock, stop) })
	}
	for path, want := range map[string]string{"profile?seconds=2": "samples", "mutex?seconds=2": "probe.contend"} {
		began := time.Now()
		text := readProfile(t, do(t, server, http.MethodGet, profilesPath+path))
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("%s: was over after %v", path, took)
		}
		if !strings.Contains(text, want) {
			t.Errorf("%s: no %s in it", path, want)
		}
	}
}

// contend takes and gives lock until stop is closed.
func contend(lock *sync.Mutex, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		lock.Lock()
		time.Sleep(100 * time.Microsecond)
		lock.Unlock()
	}
}

// Goal: contention is recorded at the rate asked for while it is captured, by one capture at a time, and not afterwards;
// a client that leaves ends its capture.
func TestContentionIsRecordedOnDemand(t *testing.T) {
	if rate := runtime.SetMutexProfileFraction(-1); rate != 0 {
		t.Fatalf("the rate is %d before", rate)
	}
	server := serve(t, &state{}, WithProfiles(false))
	awaitRate := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); runtime.SetMutexProfileFraction(-1) != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the rate is %d, want %d", runtime.SetMutexProfileFraction(-1), want)
			}
		}
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+profilesPath+"mutex?seconds=600&rate=7", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	var left sync.WaitGroup
	left.Go(func() {
		if response, err := server.Client().Do(request); err == nil {
			defer response.Body.Close()
			t.Error("the capture was over")
		}
	})
	awaitRate(7)
	if a := do(t, server, http.MethodGet, profilesPath+"mutex?seconds=1"); a.code != http.StatusConflict {
		t.Errorf("a second capture: %d %s", a.code, a.body)
	}
	leave()
	left.Wait()
	awaitRate(0)
}
