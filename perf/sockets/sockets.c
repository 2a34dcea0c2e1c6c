/* N programs that know nothing of NATS: each connects a Unix socket to the gateway, writes frames and reads the
 * answers. What a client of the gateway needs is in talk() below: with one request in flight it is one send and one recv.
 *
 * It is driven by perf/compare: "ready" when all are connected, a line on stdin to begin, "done" after the last
 * answer, and the report, one line of JSON, when stdin ends. */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STAMP_BYTES = 16, PAYLOAD_MAX = 1 << 20, PROGRAMS_MAX = 4096, WINDOW_MAX = 1024, ANSWER_SECONDS_MAX = 10, ERROR_BYTES_MAX = 4 << 10 };
enum { HEADER_V1 = 6, HEADER_V2 = 24, NO_REPLY = 1 };
enum { PUBLISH = 0x08, TASK_SUBMIT = 0x01, RESPONSE_OK = 0x10, PING = 0xF0, PONG = 0xF1 };

/* The kinds of requests. An echo's answer has the request's payload. A brief one has a connection of its own. */
struct kind {
    const char *name;
    int version, type, flags, answer, echo, brief;
};
static const struct kind kinds[] = {
    {"request", 1, TASK_SUBMIT, 0, RESPONSE_OK, 1, 0},
    {"connect", 1, TASK_SUBMIT, 0, RESPONSE_OK, 1, 1},
    {"ping", 1, PING, 0, PONG, 1, 0},
    {"publish", 2, PUBLISH, NO_REPLY, 0, 0, 0},
    {"publish-answered", 2, PUBLISH, 0, RESPONSE_OK, 0, 0},
    {"jetstream", 2, PUBLISH, 0, RESPONSE_OK, 0, 0}, /* to a subject that a stream stores */
};

/* Latencies are counted in buckets whose width is 1/128 of their value, in nanoseconds. */
enum { FINE_BITS = 7, FINE = 1 << FINE_BITS, BUCKETS = (40 - FINE_BITS) * FINE };

enum state { CONNECTING, READY, DONE };

/* What a program tells its parent, in memory that both see. */
struct share {
    volatile int state;                     /* enum state */
    uint64_t requests, started, ended, cpu; /* nanoseconds */
    uint32_t latencies[BUCKETS];
    char error[200]; /* why it ended early; empty if it did not */
    pid_t pid;       /* 0: it has ended */
};

/* One connection, with so many requests in flight. Request seq is at seq modulo window. */
struct dialog {
    struct share *share;
    const struct kind *kind;
    const char *path;
    int fd;
    size_t window, inflight;
    uint64_t number, next, oldest, until; /* of the program; of requests; nanoseconds */
    uint64_t *sent;                       /* when each request in flight was sent; 0: it is not in flight */
    char *frame;                          /* of a request */
    size_t frame_bytes, payload_at, payload_bytes;
    char *out, *in;
    size_t pending, have, in_bytes; /* bytes of out that are to be sent; bytes of in; its size */
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

static void put16(char *at, uint16_t v) { v = htons(v), memcpy(at, &v, sizeof v); }
static void put32(char *at, uint32_t v) { v = htonl(v), memcpy(at, &v, sizeof v); }
static void put64(char *at, uint64_t v) { v = htobe64(v), memcpy(at, &v, sizeof v); }

/* Makes the frame that is the same for all requests; stamp makes it that of one. */
static void make_frame(struct dialog *d, const char *subject) {
    size_t subject_bytes = d->kind->version == 2 ? strlen(subject) : 0;
    d->payload_at = d->kind->version == 2 ? HEADER_V2 + subject_bytes : HEADER_V1;
    d->frame_bytes = d->payload_at + d->payload_bytes;
    d->frame = calloc(1, d->frame_bytes);
    put32(d->frame, (uint32_t)d->frame_bytes);
    d->frame[4] = (char)d->kind->version;
    d->frame[5] = (char)d->kind->type;
    if (d->kind->version == 2) {
        put16(d->frame + 6, (uint16_t)d->kind->flags);
        put16(d->frame + 20, (uint16_t)subject_bytes);
        memcpy(d->frame + HEADER_V2, subject, subject_bytes);
    }
    memset(d->frame + d->payload_at, 'x', d->payload_bytes);
}

/* Makes the frame that of request seq. */
static void stamp(struct dialog *d, uint64_t seq) {
    if (d->kind->version == 2) put64(d->frame + 8, seq);
    if (d->payload_bytes < STAMP_BYTES) return;
    put64(d->frame + d->payload_at, d->number);
    put64(d->frame + d->payload_at + 8, seq);
}

/* There is room: of the bytes to be sent none are of a request that was answered, and a window's fit. */
static void queue(struct dialog *d, uint64_t seq, uint64_t now) {
    stamp(d, seq);
    memcpy(d->out + d->pending, d->frame, d->frame_bytes);
    d->pending += d->frame_bytes;
    if (seq >= d->next) d->next = seq + 1;
    if (d->kind->answer == 0) return;
    d->sent[seq % d->window] = now;
    d->inflight++;
}

/* Sends what the kernel takes. While some is left, answers are to be read, or two would wait for each other. */
static int push(struct dialog *d) {
    size_t sent = 0;
    while (sent < d->pending) {
        ssize_t n = send(d->fd, d->out + sent, d->pending - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0 && errno != EINTR) return fail(d->share, strerror(errno));
        if (n > 0) sent += n;
    }
    d->pending -= sent;
    if (d->pending > 0) memmove(d->out, d->out + sent, d->pending);
    return 1;
}

/* Reads once, and waits for it if nothing is left to be sent. */
static int pull(struct dialog *d) {
    int flags = d->pending > 0 ? MSG_DONTWAIT : 0;
    struct pollfd ready = {.fd = d->fd, .events = POLLIN | POLLOUT};
    if (flags && poll(&ready, 1, ANSWER_SECONDS_MAX * 1000) == 0) return fail(d->share, "the gateway takes nothing more");
    ssize_t n = recv(d->fd, d->in + d->have, d->in_bytes - d->have, flags);
    if (n == 0) return fail(d->share, "the gateway closed the connection");
    if (n < 0 && (errno == EINTR || (errno == EAGAIN && flags))) return 1;
    if (n < 0) return fail(d->share, errno == EAGAIN ? "no answer in time" : strerror(errno));
    d->have += n;
    return 1;
}

/* Checks an answer and says in seq which request it belongs to. */
static int check(struct dialog *d, const char *answer, size_t length, uint64_t *seq) {
    const struct kind *k = d->kind;
    size_t header = k->version == 2 ? HEADER_V2 : HEADER_V1;
    if ((unsigned char)answer[5] != k->answer) {
        char text[ERROR_BYTES_MAX + 1] = "an answer of another type";
        if (length > header && length - header <= ERROR_BYTES_MAX)
            memcpy(text, answer + header, length - header), text[length - header] = 0;
        return fail(d->share, text);
    }
    *seq = d->oldest;
    if (k->version == 2) memcpy(seq, answer + 8, 8), *seq = be64toh(*seq);
    if (*seq >= d->next || *seq + d->window < d->next || d->sent[*seq % d->window] == 0)
        return fail(d->share, "an answer to a request that is not in flight");
    if (answer[4] != k->version || (k->echo && length != d->frame_bytes))
        return fail(d->share, "the answer has another length or version than the request");
    if (!k->echo) return 1;
    stamp(d, *seq);
    if (memcmp(d->frame + d->payload_at, answer + header, d->payload_bytes) != 0)
        return fail(d->share, "the answer is that of another request");
    return 1;
}

/* Takes the answers that are there, and queues the requests that follow them. */
static int take(struct dialog *d) {
    uint64_t now = clock_of(CLOCK_MONOTONIC), seq;
    size_t at = 0, header = d->kind->version == 2 ? HEADER_V2 : HEADER_V1;
    while (d->have - at >= 4) {
        uint32_t length;
        memcpy(&length, d->in + at, 4);
        length = ntohl(length);
        if (length < header || length > d->in_bytes) return fail(d->share, "the answer is no frame");
        if (d->have - at < length) break;
        if (!check(d, d->in + at, length, &seq)) return 0;
        at += length;
        d->share->latencies[bucket_of(now - d->sent[seq % d->window])]++;
        d->share->requests++;
        d->sent[seq % d->window] = 0;
        d->inflight--;
        d->oldest++;
        if (now < d->until) queue(d, seq + d->window, now);
    }
    memmove(d->in, d->in + at, d->have - at);
    d->have -= at;
    return 1;
}

/* Keeps window requests in flight until the time is up, and then waits for the last answers. Without time it fills
 * the window once. */
static int talk(struct dialog *d, uint64_t until) {
    d->until = until;
    d->oldest = d->next;
    uint64_t now = clock_of(CLOCK_MONOTONIC);
    for (size_t i = 0; i < d->window; i++) queue(d, d->next, now);
    while (d->inflight > 0)
        if (!push(d) || !pull(d) || !take(d)) return 0;
    return 1;
}

/* Sends requests that have no answer, a window in a write, until the time is up. The answer to a PING says that the
 * gateway has read them all. */
static int tell(struct dialog *d, uint64_t until) {
    struct pollfd ready = {.fd = d->fd, .events = POLLOUT};
    do {
        for (size_t i = 0; i < d->window; i++) queue(d, d->next, 0);
        d->share->requests += d->window;
        while (d->pending > 0) {
            if (!push(d)) return 0;
            if (d->pending > 0 && poll(&ready, 1, ANSWER_SECONDS_MAX * 1000) == 0)
                return fail(d->share, "the gateway takes nothing more");
        }
    } while (clock_of(CLOCK_MONOTONIC) < until);
    char ping[HEADER_V2] = {0, 0, 0, HEADER_V2, 2, (char)PING}, pong[HEADER_V2];
    put64(ping + 8, d->next);
    if (send(d->fd, ping, sizeof ping, MSG_NOSIGNAL) != sizeof ping) return fail(d->share, strerror(errno));
    if (recv(d->fd, pong, sizeof pong, MSG_WAITALL) != sizeof pong) return fail(d->share, "no PONG after the last message");
    ping[5] = (char)PONG;
    return memcmp(ping, pong, sizeof ping) == 0 ? 1 : fail(d->share, "something else than PONG after the last message");
}

/* Connects, makes one request and closes, until the time is up. Connecting is a part of what a request takes. */
static int visit(struct dialog *d, uint64_t until) {
    do {
        uint64_t now = clock_of(CLOCK_MONOTONIC);
        d->until = 0;
        d->oldest = d->next;
        if ((d->fd = dial(d->path)) < 0) return fail(d->share, strerror(errno));
        queue(d, d->next, now);
        while (d->inflight > 0)
            if (!push(d) || !pull(d) || !take(d)) return 0;
        close(d->fd);
    } while (clock_of(CLOCK_MONOTONIC) < until);
    return 1;
}

static int work(struct dialog *d, uint64_t until) {
    if (d->kind->brief) return visit(d, until);
    return d->kind->answer ? talk(d, until) : tell(d, until);
}

/* run is one program: it is READY when it is connected and warm, and goes when the other end of go is closed. Its
 * connection stays open. */
static void run(struct dialog *d, const char *subject, double seconds, int ready, int go) {
    struct share *s = d->share;
    char byte = 0;
    make_frame(d, subject);
    d->in_bytes = 2 * d->frame_bytes + ERROR_BYTES_MAX + (64 << 10);
    d->in = malloc(d->in_bytes);
    d->out = malloc(d->window * d->frame_bytes);
    d->sent = calloc(d->window, sizeof *d->sent);
    if (!d->kind->brief && (d->fd = dial(d->path)) < 0) fail(s, strerror(errno));
    if (s->error[0] == 0) work(d, 0); /* the first ones are not counted */
    s->requests = 0;
    memset(s->latencies, 0, sizeof s->latencies);
    s->state = READY;
    if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 0) return;
    if (s->error[0] == 0) {
        uint64_t cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
        s->started = clock_of(CLOCK_MONOTONIC);
        work(d, s->started + (uint64_t)(seconds * 1e9));
        s->ended = clock_of(CLOCK_MONOTONIC);
        s->cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    }
    s->state = DONE;
    if (write(ready, &byte, 1) != 1) return;
}

static double quantile(const struct share *all, uint64_t requests, double share) {
    uint64_t rank = (uint64_t)(share * (double)requests), seen = 0;
    double value = 0;
    for (int i = 0; i < BUCKETS && seen <= rank; i++) {
        if (all->latencies[i]) value = value_of(i) / 1000;
        seen += all->latencies[i];
    }
    return value;
}

/* Those of report.Quantiles. */
static const double quantiles[] = {0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1};

/* report prints what the programs did together, and returns how many failed. */
static int report(struct share *shares, int programs, const struct dialog *d) {
    static struct share all;
    int errors = 0;
    uint64_t latencies = 0;
    all.started = UINT64_MAX;
    for (int p = 0; p < programs; p++) {
        struct share *s = &shares[p];
        all.requests += s->requests;
        all.cpu += s->cpu;
        if (s->started && s->started < all.started) all.started = s->started;
        if (s->ended > all.ended) all.ended = s->ended;
        for (int i = 0; i < BUCKETS; i++) all.latencies[i] += s->latencies[i], latencies += s->latencies[i];
        if (s->error[0] && errors++ == 0) snprintf(all.error, sizeof all.error, "program %d: %.170s", p, s->error);
    }
    for (char *c = all.error; *c; c++)
        if (*c < ' ' || *c == '"' || *c == '\\' || *c == 127) *c = '\'';
    double seconds = all.ended > all.started ? (double)(all.ended - all.started) / 1e9 : 0;
    printf("{\"programs\":%d,\"connections\":%d,\"window\":%zu,\"requests\":%llu,\"seconds\":%.9f,\"cpu_seconds\":%.9f,\"errors\":%d,"
           "\"first_error\":\"%s\",\"quantiles_us\":[",
           programs, programs, d->window, (unsigned long long)all.requests, seconds, (double)all.cpu / 1e9, errors, all.error);
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) printf("%s%.3f", i ? "," : "", quantile(&all, latencies, quantiles[i]));
    printf("],\"histogram_us\":[");
    for (int i = 0, some = 0; i < BUCKETS; i++)
        if (all.latencies[i]) printf("%s[%.3f,%u]", some++ ? "," : "", value_of(i) / 1000, all.latencies[i]);
    puts("]}");
    return errors;
}

/* Notes which programs have died. */
static void reap(struct share *shares, int programs) {
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (int p = 0; p < programs; p++)
            if (shares[p].pid == pid) {
                shares[p].pid = 0;
                fail(&shares[p], WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "the program ended early");
            }
}

/* await returns when all programs that live are in the state. Nobody waits for one that has died. */
static void await(int ready, struct share *shares, int programs, enum state state) {
    for (;;) {
        int missing = 0;
        reap(shares, programs);
        for (int p = 0; p < programs; p++) missing += shares[p].pid != 0 && shares[p].state < (int)state;
        if (missing == 0) return;
        struct pollfd said = {.fd = ready, .events = POLLIN};
        char bytes[64];
        /* All have closed their ends: reap will say how they ended. */
        if (poll(&said, 1, 20) > 0 && read(ready, bytes, sizeof bytes) == 0) usleep(1000);
    }
}

static int usage(void) {
    fprintf(stderr, "usage: sockets KIND SOCKET PROGRAMS WINDOW PAYLOAD_BYTES SECONDS SUBJECT\n"
                    "KIND is request, connect (for each request), ping, publish (without answers), publish-answered or jetstream.\n"
                    "At most %d programs and a window of %d;\n"
                    "payloads of %d to %d bytes, of ping 0.\n", PROGRAMS_MAX, WINDOW_MAX, STAMP_BYTES, PAYLOAD_MAX);
    return 2;
}

int main(int argc, char **argv) {
    if (argc != 8) return usage();
    struct dialog d = {.path = argv[2], .window = (size_t)atoi(argv[4]), .payload_bytes = (size_t)atoi(argv[5])};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(argv[1], kinds[i].name) == 0) d.kind = &kinds[i];
    int programs = atoi(argv[3]);
    double seconds = atof(argv[6]);
    size_t payload_min = d.kind && d.kind->type == PING ? 0 : STAMP_BYTES, payload_max = payload_min ? PAYLOAD_MAX : 0;
    if (!d.kind || (d.kind->brief && d.window != 1) || programs < 1 || programs > PROGRAMS_MAX || d.window < 1 || d.window > WINDOW_MAX || seconds <= 0 ||
        d.payload_bytes < payload_min || d.payload_bytes > payload_max || strlen(argv[7]) > UINT16_MAX ||
        strlen(argv[2]) >= sizeof((struct sockaddr_un *)0)->sun_path)
        return usage();
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
            close(ready[0]);
            close(go[1]);
            close(leave[1]);
            d.share = &shares[p];
            d.number = (uint64_t)p;
            run(&d, argv[7], seconds, ready[1], go[0]);
            close(ready[1]);
            _exit((int)read(leave[0], &byte, 1));
        }
        shares[p].pid = child;
    }
    close(ready[1]);
    char line[64];
    await(ready[0], shares, programs, READY);
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 1;
    close(go[1]);
    await(ready[0], shares, programs, DONE);
    puts("done");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
    }
    return report(shares, programs, &d) > 0;
}
