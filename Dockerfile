# syntax=docker/dockerfile:1

# Another image with Go and a shell, where docker.io cannot be reached: --build-arg GO_IMAGE=...
ARG GO_IMAGE=docker.io/library/golang:1.26-alpine
FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
# Inside a container, loopback is nobody's but the gateway's: the probe's default is another. It is no ENV, which would win over a file.
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION} -X main.defaultProbeAddr=0.0.0.0:8080" -o /root-of-image/ipc-gateway ./cmd/ipc-gateway \
    && mkdir -m 1777 /root-of-image/tmp

FROM scratch
ARG VERSION=unknown
LABEL org.opencontainers.image.title="ipc-gateway" \
      org.opencontainers.image.description="Carries requests of local programs from a Unix socket to NATS" \
      org.opencontainers.image.version="${VERSION}"
# Authorities for tls:// servers; --nats-ca names others.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /root-of-image /
# The clients reach the socket through this volume, which they mount as well; or where IPC_SOCKET_PATH says.
VOLUME /tmp
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=6s --start-period=10s CMD ["/ipc-gateway", "health"]
ENTRYPOINT ["/ipc-gateway"]
CMD ["serve"]
