package probe

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/internal/testtool"
)

// tab is a page in a browser without a window, driven by the DevTools protocol over a pipe: JSON, each message ended by a zero.
type tab struct {
	commands io.Writer
	answers  *bufio.Reader
	session  string
	last     int
}

// openTab opens a page in a browser of its own, which ends with the test.
func openTab(t *testing.T, url string) *tab {
	t.Helper()
	browser := testtool.Find(t, "chromium", "chromium")
	commandsIn, commands := pipe(t)
	answers, answersOut := pipe(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	// A folder of its own, so that other instances are left alone; no sandbox, so that it works as root.
	cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir="+t.TempDir(),
		"--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{commandsIn, answersOut} // descriptors 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = commandsIn.Close()
	_ = answersOut.Close()
	p := &tab{commands: commands, answers: bufio.NewReader(answers)}
	t.Cleanup(func() {
		p.session = ""
		p.do(t, "Browser.close", nil, nil)
		_ = cmd.Wait()
		cancel()
	})
	var target struct{ TargetID string }
	p.do(t, "Target.createTarget", map[string]any{"url": url}, &target)
	var attached struct{ SessionID string }
	p.do(t, "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	p.session = attached.SessionID
	return p
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// do calls a method, and reads its result into result unless that is nil.
func (p *tab) do(t *testing.T, method string, params map[string]any, result any) {
	t.Helper()
	p.last++
	command := map[string]any{"id": p.last, "method": method, "params": params}
	if params == nil {
		command["params"] = struct{}{}
	}
	if p.session != "" {
		command["sessionId"] = p.session
	}
	text, err := json.Marshal(command)
	if err == nil {
		_, err = p.commands.Write(append(text, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	for {
		text, err := p.answers.ReadBytes(0)
		if err != nil {
			t.Fatalf("%s: the browser has ended: %v", method, err)
		}
		var answer struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err := json.Unmarshal(text[:len(text)-1], &answer); err != nil {
			t.Fatal(err)
		}
		if answer.ID != p.last {
			continue // an event
		}
		if answer.Error != nil {
			t.Fatalf("%s: %s", method, answer.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(answer.Result, result); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
}

// evaluate returns what an expression in the page is; nil if it cannot be evaluated.
func (p *tab) evaluate(t *testing.T, expression string) any {
	t.Helper()
	var answer struct{ Result struct{ Value any } }
	p.do(t, "Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &answer)
	return answer.Result.Value
}

func (p *tab) text(t *testing.T, expression string) string {
	t.Helper()
	text, _ := p.evaluate(t, expression).(string)
	return text
}

func (p *tab) number(t *testing.T, expression string) float64 {
	t.Helper()
	number, _ := p.evaluate(t, expression).(float64)
	return number
}

// screenshot writes a picture of the page, for a person to look at.
func (p *tab) screenshot(t *testing.T, name string) {
	t.Helper()
	var picture struct{ Data []byte }
	p.do(t, "Page.captureScreenshot", nil, &picture)
	if err := os.WriteFile(name, picture.Data, 0o600); err != nil {
		t.Fatal(err)
	}
}
