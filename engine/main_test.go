package engine

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain also is the other processes of the tests: nats-servers to be killed, clients whose
// allocations must not count. They are this binary, run with the name of a role.
func TestMain(m *testing.M) {
	if role := roles[os.Getenv("IPC_TEST_ROLE")]; role != nil {
		role()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m,
		// gnet enrolls connections from a worker pool that lives as long as the process.
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"),
	)
}
