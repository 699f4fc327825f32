# syntax=docker/dockerfile:1
# The image of the agent: one static program. It has all verbs except `lab` (deploy/image/build.sh).
#
#   docker build -t registry.example.org/network/palisade:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 -t … --push .
#
# docs/install.md says what to do with it.

FROM rust:1.95.0-slim-trixie AS build
# The toolchain of the image as it is: rust-toolchain.toml asks for components that a build doesn't need.
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_TERM_COLOR=never
RUN cargo install --locked --root /opt/sbom cargo-cyclonedx@0.5.9
ENV PATH=/opt/sbom/bin:$PATH
WORKDIR /src
COPY . .
RUN deploy/image/build.sh /image

# No shell, no package manager, no C library. No CA certificates either: the API server's are mounted into every pod with the
# service account, and no one else is asked.
FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Palisade" \
      org.opencontainers.image.description="Kubernetes network policies: enforced, explained, proved" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      dev.palisade.sbom="/usr/share/palisade/sbom.cdx.json" \
      dev.palisade.notices="/usr/share/palisade/NOTICES.txt"
COPY --from=build /image/ /
ENV PATH=/usr/local/bin
# Asking questions takes no rights. The agent's DaemonSet says uid 0: programming the kernel takes CAP_NET_ADMIN, which Kubernetes
# gives to uid 0 alone.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/palisade"]
