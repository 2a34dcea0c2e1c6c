package control

import (
	"context"
	"net"
	"net/http"
)

// Do sends a request without a body to the control socket at path, on a connection of its own, and returns the answer. The
// caller closes its body.
func Do(ctx context.Context, path, method, target string) (*http.Response, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://gateway"+target, http.NoBody)
	if err != nil {
		return nil, err
	}
	return (&http.Client{Transport: transport}).Do(request)
}
