# syntax=docker/dockerfile:1
# The image of the agent: one static program. It has all verbs except `lab` (deploy/image/build.sh).
#
#   docker build -t registry.example.org/network/palisade:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 -t … --push .
#
# docs/install.md describes how to use it.

FROM rust:1.95.0-slim-trixie AS build
# Uses the toolchain of the image: rust-toolchain.toml lists components that a build doesn't need.
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_TERM_COLOR=never
RUN cargo install --locked --root /opt/sbom cargo-cyclonedx@0.5.9
ENV PATH=/opt/sbom/bin:$PATH
WORKDIR /src
COPY . .
RUN deploy/image/build.sh /image

# No shell, no package manager, no C library. No CA certificates either: that of the API server is mounted into every pod with the
# service account, and the agent connects to no other server.
FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Palisade" \
      org.opencontainers.image.description="Enforces Kubernetes network policies with nftables, and explains their verdicts" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      dev.palisade.sbom="/usr/share/palisade/sbom.cdx.json" \
      dev.palisade.notices="/usr/share/palisade/NOTICES.txt"
COPY --from=build /image/ /
ENV PATH=/usr/local/bin
# Queries require no privileges. The agent's DaemonSet sets uid 0: programming the kernel requires CAP_NET_ADMIN, which Kubernetes
# grants only to uid 0.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/palisade"]
