package compare

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Goal: every part measures a real gateway, and each goal has a believable figure, its bounds, and a verdict; all of it
// survives JSON.
func TestOwn(t *testing.T) {
	skipIfShort(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := OwnSettings{Parts: OwnParts, Garbage: 200 * time.Millisecond, Requests: 1000, Idle: 200 * time.Millisecond, Run: 200 * time.Millisecond, Repeats: 1, Rate: 1000}
	result, err := Own(t.Context(), s, t.Logf)
	if err != nil {
		t.Fatal(result, err)
	}
	var what []string
	for _, g := range result.Goals {
		what = append(what, g.Part+": "+g.What)
		if g.Least == 0 && g.Most == 0 && g.What != "collections" || !strings.Contains(fmt.Sprint(Reached, NotReached, NotShown), g.Verdict) || g.Verdict == NotShown && g.Note == "" {
			t.Errorf("not judged: %+v", g)
		}
		switch least := map[string]float64{PartMemory: 5, PartFlat: 0.1, PartLoops: 0.1}[g.Part]; {
		case g.Part == PartLoops && runtime.NumCPU() < 2: // nothing to measure
		case g.Got < least || g.Got > 1000:
			t.Errorf("not believable: %+v", g)
		}
	}
	want := []string{
		"garbage: collections", "garbage: mallocs per request", "memory: RSS idle", "memory: RSS under a load of 64 connections", "memory: RSS with ",
		"idle: CPU of an idle gateway with 1000 idle clients", "flat: CPU per request with 256 connections, by that with 64", "flat: CPU per request with 1024",
		"flat: CPU per request with 4096", "loops: PING of two loops",
	}
	if len(what) != len(want) {
		t.Fatalf("got %q", what)
	}
	for i, front := range want {
		if !strings.HasPrefix(what[i], front) {
			t.Errorf("goal %d is %q, want %q", i, what[i], front)
		}
	}
	// So short a run shows nothing about garbage and idle clients, and does not say so of itself.
	for _, i := range []int{0, 1, 5} {
		if g := result.Goals[i]; g.Verdict != NotShown || !strings.Contains(g.Note, "the goal is about") {
			t.Errorf("%+v", g)
		}
	}
	text, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	var again OwnResult
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again.Goals, result.Goals) {
		t.Errorf("%v: after JSON: %s", err, text)
	}
	var out strings.Builder
	result.Write(&out)
	for _, g := range result.Goals {
		if !strings.Contains(out.String(), g.What) || !strings.Contains(out.String(), g.Note) {
			t.Errorf("no %+v in\n%s", g, out.String())
		}
	}
}

// Goal: a figure is judged by both bounds, and one that shows nothing is not judged, whatever it is.
func TestOwnVerdicts(t *testing.T) {
	for _, test := range []struct {
		g    OwnGoal
		why  string
		want string
	}{
		{OwnGoal{Got: 0.001, Most: 0.001}, "", Reached}, {OwnGoal{Got: 0.0011, Most: 0.001}, "", NotReached},
		{OwnGoal{Got: 0}, "", Reached}, {OwnGoal{Got: 1}, "", NotReached},
		{OwnGoal{Got: 1.6, Least: 1.6}, "", Reached}, {OwnGoal{Got: 1.59, Least: 1.6}, "", NotReached},
		{OwnGoal{Got: 1, Least: 0.85, Most: 1.15}, "", Reached}, {OwnGoal{Got: 0.8, Least: 0.85, Most: 1.15}, "", NotReached}, {OwnGoal{Got: 1.2, Least: 0.85, Most: 1.15}, "", NotReached},
		{OwnGoal{Got: 1, Most: 2, Note: "measured"}, "too few CPUs", NotShown},
	} {
		var r OwnResult
		r.add(test.g, test.why)
		if got := r.Goals[0]; got.Verdict != test.want || !strings.HasSuffix(got.Note, test.why) || !strings.HasPrefix(got.Note, test.g.Note) {
			t.Errorf("%+v: %+v", test.g, got)
		}
	}
	bad := DefaultOwn()
	bad.Parts, bad.Rate = []string{"soul"}, 0
	if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), "soul") || !strings.Contains(err.Error(), "rate") {
		t.Error(err)
	}
}

// Goal: a limit of open files that cannot be raised is told, with what it allows.
func TestAllowFiles(t *testing.T) {
	if got, err := allowFiles(100); err != nil || got != 100 {
		t.Errorf("%d of 100, %v", got, err)
	}
	// More than the kernel lets anyone have.
	if got, err := allowFiles(1 << 40); err != nil || got <= 0 || got >= 1<<40 {
		t.Errorf("%d, %v", got, err)
	}
}
