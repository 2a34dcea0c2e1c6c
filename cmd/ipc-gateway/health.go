package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// verdictBytesMax bounds what is read of the probe's answer.
const verdictBytesMax = 64 << 10

// healthCommand asks the probe of a gateway how it is, for containers without a shell and a curl.
type healthCommand struct {
	Config    string        `placeholder:"FILE" help:"The file that serve was given ($$IPC_CONFIG)."`
	ProbeAddr string        `placeholder:"HOST:PORT" help:"The gateway's probe [${probeAddr}] ($$IPC_PROBE_ADDR)."`
	Ready     bool          `env:"IPC_HEALTH_READY" help:"Ask /ready, whether requests are served, instead of /health."`
	Timeout   time.Duration `default:"5s" env:"IPC_HEALTH_TIMEOUT" help:"How long the answer may take [${default}]."`
}

// Help is what "health --help" says before the flags.
func (h *healthCommand) Help() string {
	return `Asks the probe at the address that serve would have by the same flags, environment and file, and prints its answer. An address such as 0.0.0.0:8080 is asked on loopback.

Examples:

    ipc-gateway health
    ipc-gateway health --ready --config /etc/ipc-gateway.yaml
    HEALTHCHECK CMD ["/ipc-gateway", "health"]        # in a Dockerfile

Exit codes: 0 healthy, 1 not, or there is no answer.`
}

// Run prints the message of the probe, and fails unless it says healthy.
func (h *healthCommand) Run(a *app) error {
	o, problems := a.configure(h.flags())
	verdict, err := h.ask(o.probeAddr)
	if err == nil {
		fmt.Fprintln(a.stdout, verdict)
		return nil
	}
	if len(problems) > 0 {
		// They are no reason to call a gateway unhealthy that was started before the mistake, but may be why it is not found.
		return fmt.Errorf("%w\nthe settings have problems:\n  %s", err, strings.Join(problems, "\n  "))
	}
	return err
}

// flags returns what the command line says of the settings, as the command serve would have it.
func (h *healthCommand) flags() map[string]string {
	texts := map[string]string{}
	for name, text := range map[string]string{"config": h.Config, "probe-addr": h.ProbeAddr} {
		if text != "" {
			texts[name] = text
		}
	}
	return texts
}

// ask returns the message of the probe at address. What is not healthy is an error.
func (h *healthCommand) ask(address string) (string, error) {
	if address == "" {
		return "", errors.New("the probe is switched off (probe_addr), so nobody can tell: give it an address, or try \"ipc-gateway ping\"")
	}
	if _, port, _ := net.SplitHostPort(address); port == "0" {
		return "", fmt.Errorf("the probe address %s means any free port: give the real one with --probe-addr; the gateway's log has it", address)
	}
	path := "/health"
	if h.Ready {
		path = "/ready"
	}
	// Neither a proxy nor a kept connection: this is one question to our own machine.
	probe := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: h.Timeout}
	response, err := probe.Get("http://" + address + path)
	if err != nil {
		return "", fmt.Errorf("the probe does not answer: %w", err)
	}
	defer response.Body.Close()
	return readVerdict(response)
}

// readVerdict reads an answer of /health or /ready.
func readVerdict(response *http.Response) (string, error) {
	var verdict struct{ Status, Message string }
	body, err := io.ReadAll(io.LimitReader(response.Body, verdictBytesMax))
	if err == nil {
		err = json.Unmarshal(body, &verdict)
	}
	if err != nil || verdict.Status == "" {
		return "", fmt.Errorf("%s is not the probe of an ipc-gateway: status %d", response.Request.URL, response.StatusCode)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", verdict.Status, verdict.Message)
	}
	return verdict.Status + ": " + verdict.Message, nil
}
