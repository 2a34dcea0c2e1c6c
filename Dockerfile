# syntax=docker/dockerfile:1

FROM golang:1.26-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /root-of-image/ipc-gateway ./cmd/ipc-gateway \
    && mkdir -m 1777 /root-of-image/tmp

FROM scratch
# Authorities for tls:// servers; --nats-ca names others.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /root-of-image /
# The clients reach the socket through a volume that they mount as well: /tmp, or where IPC_SOCKET_PATH says.
USER 65532:65532
# Inside a container, loopback is nobody's but the gateway's.
ENV IPC_PROBE_ADDR=0.0.0.0:8080
EXPOSE 8080
ENTRYPOINT ["/ipc-gateway"]
CMD ["serve"]
