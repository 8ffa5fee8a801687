# pgstar as a small image that runs without root. Build it with BuildKit: docker build --tag pgstar .

FROM rust:1-slim-bookworm AS builder
WORKDIR /source
COPY . .
# The caches are not part of the image, so what they hold is copied out in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --package pgstar \
    && install -D -m 0755 target/release/pgstar /out/pgstar

FROM debian:bookworm-slim
COPY --from=builder /out/pgstar /usr/local/bin/pgstar
COPY LICENSE /usr/share/doc/pgstar/LICENSE
# By number, so that an orchestrator can see that it is not root. pgstar writes no files.
USER 10001:10001
# Clients, and /metrics, /healthz, /readyz.
EXPOSE 6432 9632
STOPSIGNAL SIGTERM
# The image has no curl; bash can speak HTTP. Wants [admin] on port 9632.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["/bin/bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/9632 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r status <&3 && [[ $status == *' 200 '* ]]"]
ENTRYPOINT ["pgstar"]
CMD ["serve", "--config", "/etc/pgstar/pgstar.toml"]
