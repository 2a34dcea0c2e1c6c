/* N programs that know nothing of NATS: each connects a blocking Unix socket to the gateway, writes a version 1
 * TASK_SUBMIT, reads the answer, and begins again. What a client of the gateway needs is in talk() below.
 *
 * It is driven and reports as perf/load does with -controlled: "ready" when all are connected, a line on stdin
 * to begin, "done" after the last answer, and the report, one line of JSON, when stdin ends. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { HEADER_BYTES = 6, STAMP_BYTES = 16, PAYLOAD_MAX = 1 << 20, PROGRAMS_MAX = 1024, ANSWER_SECONDS_MAX = 10 };
enum { VERSION = 1, TASK_SUBMIT = 0x01, RESPONSE_OK = 0x10 };

/* Latencies are counted in buckets whose width is 1/128 of their value, in nanoseconds. */
enum { FINE_BITS = 7, FINE = 1 << FINE_BITS, BUCKETS = (40 - FINE_BITS) * FINE };

/* What a program tells its parent, in memory that both see. */
struct share {
    uint64_t requests, started, ended, cpu; /* nanoseconds */
    uint32_t latencies[BUCKETS];
    char error[200]; /* why it ended early; empty if it did not */
};

static uint64_t clock_of(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int bucket_of(uint64_t ns) {
    if (ns < FINE) return (int)ns;
    int shift = 63 - __builtin_clzll(ns) - FINE_BITS;
    int bucket = (shift + 1) * FINE + (int)((ns >> shift) - FINE);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* The middle of a bucket. */
static double value_of(int bucket) {
    if (bucket < FINE) return bucket;
    int shift = bucket / FINE - 1;
    return ((double)(bucket % FINE + FINE) + 0.5) * (double)(1ULL << shift);
}

static int fail(struct share *s, const char *what) {
    if (s->error[0] == 0) snprintf(s->error, sizeof s->error, "%s", what);
    return 0;
}

static int dial(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = ANSWER_SECONDS_MAX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0 ||
        connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return -1;
    return fd;
}

/* talk sends one frame of length bytes and reads its answer. It returns 0 if that is not the same payload. */
static int talk(struct share *s, int fd, const char *frame, char *answer, size_t length) {
    for (size_t sent = 0; sent < length;) {
        ssize_t n = write(fd, frame + sent, length - sent);
        if (n < 0 && errno != EINTR) return fail(s, strerror(errno));
        if (n > 0) sent += n;
    }
    size_t got = 0, want = length;
    while (got < want) {
        ssize_t n = read(fd, answer + got, PAYLOAD_MAX - got);
        if (n == 0) return fail(s, "the gateway closed the connection");
        if (n < 0 && errno != EINTR) return fail(s, strerror(errno));
        if (n > 0) got += n;
        if (got >= 4) {
            uint32_t stated;
            memcpy(&stated, answer, 4);
            want = ntohl(stated);
            if (want < HEADER_BYTES || want >= PAYLOAD_MAX) return fail(s, "the answer is no frame");
        }
    }
    if (answer[5] != RESPONSE_OK && got == want) {
        answer[got] = 0;
        return fail(s, answer + HEADER_BYTES);
    }
    if (got != length || answer[4] != VERSION) return fail(s, "the answer has another length or version than the request");
    if (memcmp(frame + HEADER_BYTES, answer + HEADER_BYTES, length - HEADER_BYTES) != 0)
        return fail(s, "the answer is that of another request");
    return 1;
}

/* run is one program: it says on ready that it is connected, and goes when the other end of go is closed. The
 * connection stays open. */
static void run(struct share *s, const char *path, uint64_t number, size_t payload, double seconds, int ready, int go) {
    size_t length = HEADER_BYTES + payload;
    uint32_t stated = htonl((uint32_t)length);
    char *frame = malloc(length), *answer = malloc(PAYLOAD_MAX + 1), byte = 0;
    int fd = dial(path);
    if (fd < 0) fail(s, strerror(errno));
    memset(frame, 'x', length);
    memcpy(frame, &stated, 4);
    frame[4] = VERSION;
    frame[5] = TASK_SUBMIT;
    memcpy(frame + HEADER_BYTES, &number, 8);
    uint64_t sequence = 0;
    memcpy(frame + HEADER_BYTES + 8, &sequence, 8);
    if (fd >= 0) talk(s, fd, frame, answer, length); /* the first one is not counted */
    if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 0 || s->error[0]) return;

    uint64_t cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t now = s->started = clock_of(CLOCK_MONOTONIC), end = now + (uint64_t)(seconds * 1e9);
    while (now < end) {
        sequence++;
        memcpy(frame + HEADER_BYTES + 8, &sequence, 8);
        if (!talk(s, fd, frame, answer, length)) break;
        uint64_t answered = clock_of(CLOCK_MONOTONIC);
        s->latencies[bucket_of(answered - now)]++;
        s->requests++;
        now = answered;
    }
    s->ended = now;
    s->cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
}

static double percentile(const struct share *all, uint64_t requests, double share) {
    uint64_t rank = (uint64_t)(share * (double)requests), seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += all->latencies[i]) > rank) return value_of(i) / 1000;
    return 0;
}

/* report prints what the programs did together, and returns how many failed. */
static int report(struct share *shares, int programs) {
    static struct share all;
    int errors = 0;
    all.started = UINT64_MAX;
    for (int p = 0; p < programs; p++) {
        struct share *s = &shares[p];
        all.requests += s->requests;
        all.cpu += s->cpu;
        if (s->started && s->started < all.started) all.started = s->started;
        if (s->ended > all.ended) all.ended = s->ended;
        for (int i = 0; i < BUCKETS; i++) all.latencies[i] += s->latencies[i];
        if (s->error[0] && errors++ == 0) snprintf(all.error, sizeof all.error, "program %d: %.180s", p, s->error);
    }
    for (char *c = all.error; *c; c++)
        if (*c < ' ' || *c == '"' || *c == '\\' || *c == 127) *c = '\'';
    double seconds = all.ended > all.started ? (double)(all.ended - all.started) / 1e9 : 0;
    printf("{\"mode\":\"sockets\",\"programs\":%d,\"connections\":%d,\"window\":1,\"requests\":%llu,\"seconds\":%.9f,\"per_second\":%.3f,"
           "\"p50_us\":%.3f,\"p99_us\":%.3f,\"p999_us\":%.3f,\"cpu_seconds\":%.9f,\"cpu_share\":%.6f,\"errors\":%d,\"first_error\":\"%s\"}\n",
           programs, programs, (unsigned long long)all.requests, seconds, seconds > 0 ? (double)all.requests / seconds : 0,
           percentile(&all, all.requests, 0.5), percentile(&all, all.requests, 0.99), percentile(&all, all.requests, 0.999),
           (double)all.cpu / 1e9, seconds > 0 ? (double)all.cpu / 1e9 / seconds : 0, errors, all.error);
    return errors;
}

/* await returns when so many programs have said something. */
static void await(int ready, int programs) {
    char byte;
    while (programs > 0)
        if (read(ready, &byte, 1) == 1) programs--;
}

int main(int argc, char **argv) {
    int programs = argc == 5 ? atoi(argv[2]) : 0, payload = argc == 5 ? atoi(argv[3]) : 0;
    double seconds = argc == 5 ? atof(argv[4]) : 0;
    if (programs < 1 || programs > PROGRAMS_MAX || payload < STAMP_BYTES || payload > PAYLOAD_MAX / 2 || seconds <= 0 ||
        strlen(argv[1]) >= sizeof((struct sockaddr_un *)0)->sun_path) {
        fprintf(stderr, "usage: sockets SOCKET PROGRAMS PAYLOAD_BYTES SECONDS\n"
                        "at most %d programs, payloads of %d to %d bytes\n", PROGRAMS_MAX, STAMP_BYTES, PAYLOAD_MAX / 2);
        return 2;
    }
    struct share *shares = mmap(NULL, programs * sizeof *shares, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int ready[2], go[2], leave[2];
    if (shares == MAP_FAILED || pipe(ready) < 0 || pipe(go) < 0 || pipe(leave) < 0) {
        perror("sockets");
        return 1;
    }
    for (int p = 0; p < programs; p++) {
        pid_t child = fork();
        if (child < 0) {
            perror("fork");
            return 1; /* the others end with us */
        }
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            char byte = 0;
            close(go[1]);
            close(leave[1]);
            run(&shares[p], argv[1], (uint64_t)p, (size_t)payload, seconds, ready[1], go[0]);
            if (write(ready[1], &byte, 1) == 1) _exit((int)read(leave[0], &byte, 1));
            _exit(1);
        }
    }
    char line[64];
    await(ready[0], programs);
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 1;
    close(go[1]);
    await(ready[0], programs);
    puts("done");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
    }
    return report(shares, programs) > 0;
}
