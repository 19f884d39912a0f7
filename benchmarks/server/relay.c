/* The least that anything between a client and a server can cost: bytes are copied from one connection to the other,
 * and nobody looks at them. `load.py --relay` compiles it, and measures it in place of `ctxkit serve`.
 *
 *     cc -O2 -o relay relay.c && ./relay PORT_OF_THE_SERVER
 *
 * Prints its address. One thread, epoll, blocking writes: enough for answers of a few hundred bytes. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_FILES = 65536, MOST_EVENTS = 512, MOST_BYTES = 1 << 16 };

static int other[MOST_FILES]; /* the connection that a connection's bytes go to; 0 is none */
static char bytes[MOST_BYTES];

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void watch(int poll, int file) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = file};
    int on = 1;
    epoll_ctl(poll, EPOLL_CTL_ADD, file, &event);
    setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void join(int poll, int listening, int port) {
    struct sockaddr_in address = loopback(port);
    int client = accept(listening, NULL, NULL), server = socket(AF_INET, SOCK_STREAM, 0);
    if (client < 0 || server < 0 || connect(server, (struct sockaddr *)&address, sizeof address) < 0) {
        perror("relay");
        exit(1);
    }
    other[client] = server;
    other[server] = client;
    watch(poll, client);
    watch(poll, server);
}

static void copy(int from) {
    int to = other[from];
    ssize_t count = to ? read(from, bytes, sizeof bytes) : 0;
    if (to && count <= 0) {
        other[from] = other[to] = 0;
        close(from);
        close(to);
    }
    for (ssize_t done = 0; done < count;) {
        ssize_t written = write(to, bytes + done, count - done);
        if (written <= 0) break; /* it has gone; its end is read next */
        done += written;
    }
}

int main(int count, char **arguments) {
    int port = count > 1 ? atoi(arguments[1]) : 0, listening = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    int poll = epoll_create1(0);
    struct epoll_event events[MOST_EVENTS];
    if (bind(listening, (struct sockaddr *)&address, size) < 0 || listen(listening, 2048) < 0) return 1;
    getsockname(listening, (struct sockaddr *)&address, &size);
    printf("http://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    watch(poll, listening);
    for (;;) {
        int ready = epoll_wait(poll, events, MOST_EVENTS, -1);
        for (int at = 0; at < ready; at++) {
            if (events[at].data.fd == listening) join(poll, listening, port);
            else copy(events[at].data.fd);
        }
    }
}
