package probe

import (
	"bytes"
	"strings"

	"github.com/VictoriaMetrics/metrics"
)

// appendProcess appends the metrics of the Go runtime and of the process to dst, which is the
// caller's, and returns it.
//
// The library writes "# HELP" without a text, spaces between labels, which OpenMetrics does not have, and calls the
// process_io_ counters gauges: that is put right on the way. What stays is that go_sched_latencies_seconds and go_gc_pauses_seconds have
// neither _sum nor _count, because the Go runtime does not know the sum, and that two counters have
// names without _total: go_cgo_calls_count, go_gc_forced_count.
func appendProcess(dst []byte) []byte {
	var text bytes.Buffer
	metrics.WriteProcessMetrics(&text)
	metrics.WriteFDMetrics(&text)
	for line := range strings.Lines(text.String()) {
		if name, ok := strings.CutPrefix(line, "# HELP "); ok {
			name = strings.TrimSpace(name)
			line = "# HELP " + name + " " + processHelp[name] + "\n"
		} else if name, ok := strings.CutSuffix(line, "_total gauge\n"); ok {
			line = name + "_total counter\n"
		}
		dst = append(dst, strings.ReplaceAll(line, `", `, `",`)...)
	}
	return dst
}

// processHelp has the HELP text of every family that the library writes on Linux. Those of
// process_pressure_ only come where the kernel accounts for the pressure on the process's cgroup.
var processHelp = map[string]string{
	"go_cgo_calls_count":                            "Calls from Go to C.",
	"go_cpu_count":                                  "CPUs that the process may use.",
	"go_gc_cpu_seconds_total":                       "CPU time spent on garbage collection, as the runtime estimates it.",
	"go_gc_duration_seconds":                        "Pauses for garbage collection; the quantiles are those of the last 256.",
	"go_gc_forced_count":                            "Garbage collections that the program asked for.",
	"go_gc_mark_assist_cpu_seconds_total":           "CPU time that goroutines spent on helping the garbage collector.",
	"go_gc_pauses_seconds":                          "Pauses for garbage collection.",
	"go_gomaxprocs":                                 "Threads that may run Go code at the same time.",
	"go_goroutines":                                 "Goroutines now.",
	"go_info":                                       "Always 1; the label tells the version of Go.",
	"go_info_ext":                                   "Always 1; the labels tell compiler, architecture, system and root of Go.",
	"go_memlimit_bytes":                             "The runtime's soft memory limit, GOMEMLIMIT.",
	"go_memstats_alloc_bytes":                       "Bytes of live heap objects, and of dead ones that are not swept yet.",
	"go_memstats_alloc_bytes_total":                 "Bytes allocated for heap objects.",
	"go_memstats_buck_hash_sys_bytes":               "Memory of the profiler's tables.",
	"go_memstats_frees_total":                       "Heap objects freed.",
	"go_memstats_gc_cpu_fraction":                   "Share of the CPU time since the start that went into garbage collection.",
	"go_memstats_gc_sys_bytes":                      "Memory of the garbage collector's own data.",
	"go_memstats_heap_alloc_bytes":                  "The same as go_memstats_alloc_bytes.",
	"go_memstats_heap_idle_bytes":                   "Heap memory in spans without objects.",
	"go_memstats_heap_inuse_bytes":                  "Heap memory in spans with objects.",
	"go_memstats_heap_objects":                      "Heap objects now.",
	"go_memstats_heap_released_bytes":               "Heap memory given back to the system.",
	"go_memstats_heap_sys_bytes":                    "Heap memory obtained from the system.",
	"go_memstats_last_gc_time_seconds":              "When the last garbage collection ended, in seconds since 1970; 0: there was none.",
	"go_memstats_lookups_total":                     "Pointer lookups; always 0.",
	"go_memstats_mallocs_total":                     "Heap objects allocated.",
	"go_memstats_mcache_inuse_bytes":                "Memory of the allocator's caches that is in use.",
	"go_memstats_mcache_sys_bytes":                  "Memory obtained for the allocator's caches.",
	"go_memstats_mspan_inuse_bytes":                 "Memory of span structures that is in use.",
	"go_memstats_mspan_sys_bytes":                   "Memory obtained for span structures.",
	"go_memstats_next_gc_bytes":                     "Size of the heap at which the next garbage collection begins.",
	"go_memstats_other_sys_bytes":                   "Memory of other data of the runtime.",
	"go_memstats_stack_inuse_bytes":                 "Memory of stacks that is in use.",
	"go_memstats_stack_sys_bytes":                   "Memory obtained for stacks.",
	"go_memstats_sys_bytes":                         "All memory that the Go runtime obtained from the system.",
	"go_mutex_wait_seconds_total":                   "Time that goroutines waited for locks.",
	"go_sched_latencies_seconds":                    "Time that goroutines were ready to run before they ran.",
	"go_scavenge_cpu_seconds_total":                 "CPU time spent on giving memory back to the system.",
	"go_threads":                                    "Threads that the runtime has created.",
	"process_cpu_seconds_system_total":              "CPU time in the kernel.",
	"process_cpu_seconds_total":                     "CPU time.",
	"process_cpu_seconds_user_total":                "CPU time outside of the kernel.",
	"process_io_read_bytes_total":                   "Bytes that read calls returned, from sockets as well.",
	"process_io_read_syscalls_total":                "Read calls.",
	"process_io_storage_read_bytes_total":           "Bytes read from disks.",
	"process_io_storage_written_bytes_total":        "Bytes written to disks.",
	"process_io_write_syscalls_total":               "Write calls.",
	"process_io_written_bytes_total":                "Bytes given to write calls, to sockets as well.",
	"process_major_pagefaults_total":                "Page faults that needed a disk.",
	"process_max_fds":                               "File descriptors that the process may have open, the soft limit.",
	"process_minor_pagefaults_total":                "Page faults that needed no disk.",
	"process_num_threads":                           "Threads now.",
	"process_open_fds":                              "File descriptors that are open now.",
	"process_pressure_cpu_stalled_seconds_total":    "Time in which all threads of the cgroup waited for a CPU.",
	"process_pressure_cpu_waiting_seconds_total":    "Time in which at least one thread of the cgroup waited for a CPU.",
	"process_pressure_io_stalled_seconds_total":     "Time in which all threads of the cgroup waited for I/O.",
	"process_pressure_io_waiting_seconds_total":     "Time in which at least one thread of the cgroup waited for I/O.",
	"process_pressure_memory_stalled_seconds_total": "Time in which all threads of the cgroup waited for memory.",
	"process_pressure_memory_waiting_seconds_total": "Time in which at least one thread of the cgroup waited for memory.",
	"process_resident_memory_anon_bytes":            "Resident memory that no file backs.",
	"process_resident_memory_bytes":                 "Resident memory.",
	"process_resident_memory_file_bytes":            "Resident memory that maps files.",
	"process_resident_memory_peak_bytes":            "Resident memory at its highest.",
	"process_resident_memory_shared_bytes":          "Resident memory that is shared.",
	"process_start_time_seconds":                    "When the process started, in seconds since 1970.",
	"process_virtual_memory_bytes":                  "Address space.",
	"process_virtual_memory_peak_bytes":             "Address space at its highest.",
}
