/* A yardstick: the least that answering PING on a Unix socket can cost. One thread, one epoll, one
 * read and one write for each connection that is ready; no limits, no timeouts, no other frames. */
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FRAME_BYTES = 6, READ_BYTES = 64 << 10, EVENTS_MAX = 256, DESCRIPTORS_MAX = 4096 };

static const char ping[FRAME_BYTES] = {0, 0, 0, FRAME_BYTES, 0x01, (char)0xF0};
static const char pong[FRAME_BYTES] = {0, 0, 0, FRAME_BYTES, 0x01, (char)0xF1};

/* What came of a frame that is not whole yet, by descriptor. */
static struct { char bytes[FRAME_BYTES]; int count; } tails[DESCRIPTORS_MAX];

/* answer returns 0 when the connection has ended or sent something that is no PING. */
static int answer(int fd) {
    static char in[FRAME_BYTES + READ_BYTES], out[FRAME_BYTES + READ_BYTES];
    int have = tails[fd].count, done = 0;
    memcpy(in, tails[fd].bytes, have);
    ssize_t got = read(fd, in + have, READ_BYTES);
    if (got <= 0) return 0;
    for (have += got; have - done >= FRAME_BYTES; done += FRAME_BYTES) {
        if (memcmp(in + done, ping, FRAME_BYTES) != 0) return 0;
        memcpy(out + done, pong, FRAME_BYTES);
    }
    tails[fd].count = have - done;
    memcpy(tails[fd].bytes, in + done, have - done);
    return done == 0 || write(fd, out, done) == done;
}

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path) {
        fprintf(stderr, "usage: echo SOCKET\n");
        return 2;
    }
    strcpy(address.sun_path, argv[1]);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS_MAX];
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1024) < 0 ||
        epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event) < 0) {
        perror(argv[1]);
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(poll, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                if (!answer(fd)) close(fd);
                continue;
            }
            event.data.fd = accept(listener, NULL, NULL);
            if (event.data.fd >= DESCRIPTORS_MAX) close(event.data.fd);
            else if (event.data.fd >= 0) {
                tails[event.data.fd].count = 0;
                epoll_ctl(poll, EPOLL_CTL_ADD, event.data.fd, &event);
            }
        }
    }
}
