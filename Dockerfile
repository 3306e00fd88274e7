# A static binary, alone in its image, run by nobody in particular.
#
# GO_IMAGE may name any image that has Go 1.26 and a shell.
ARG GO_IMAGE=golang:1.26
FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/redynamo ./cmd/redynamo && mkdir -p /out/data

FROM scratch
COPY --from=build /out/redynamo /redynamo
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
VOLUME /data
# Plain door, cluster door, node to node, gossip, admin HTTP.
EXPOSE 6379 6380 7379 7946 7946/udp 8379
ENV REDYNAMO_DATA_DIR=/data
# Every client of a container comes from another machine. Whoever publishes its ports
# decides who can reach them, or gives the node a password; so does the image of Redis.
ENV REDYNAMO_PROTECTED_MODE=no
HEALTHCHECK --interval=2s --timeout=3s --start-period=30s --retries=5 CMD ["/redynamo", "health"]
ENTRYPOINT ["/redynamo"]
CMD ["server"]
