package main

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// usableCPUs returns the CPUs that this process may run on, or none if the kernel does not say.
func usableCPUs() (cpus []int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	for cpu := range cpusMax {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// cpusProblem says which CPUs the loops cannot be pinned to, as they are not among the usable ones. Empty: they can, or it is
// not known.
func (o *options) cpusProblem(usable []int) string {
	var missing []int
	for _, cpu := range o.engine.CPUs {
		if cpu < cpusMax && !slices.Contains(usable, cpu) {
			missing = append(missing, cpu)
		}
	}
	if len(usable) == 0 || len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("%s: this process may not use CPU %s: want some of %s", o.sourceOf("cpus"), showCPUs(missing), showCPUs(usable))
}
