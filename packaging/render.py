#!/usr/bin/env python3
"""Writes the krew manifest and the Homebrew formula of a release folder: packaging/render.py FOLDER VERSION REPOSITORY"""

import hashlib
import sys
from pathlib import Path

# Of each platform: Homebrew's words for its system and processor.
PLATFORMS = {
    "linux-amd64": ("linux", "intel"),
    "linux-arm64": ("linux", "arm"),
    "darwin-amd64": ("macos", "intel"),
    "darwin-arm64": ("macos", "arm"),
    "windows-amd64": (None, None),
}

KREW = """\
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: palisade
spec:
  version: v{version}
  homepage: {repository}
  shortDescription: Explain and test NetworkPolicies
  description: |
    Answers whether a connection is allowed, by which policy, rule and line, and
    how to change that: for the cluster, for manifests, and for what applying
    manifests would open and close. Reads the cluster; writes nothing to it.

      kubectl palisade overview
      kubectl palisade can shop/web shop/svc/db:5432
      kubectl palisade diff --live deploy/
  platforms:
{platforms}"""

KREW_PLATFORM = """\
  - selector:
      matchLabels:
        os: {os}
        arch: {arch}
    uri: {uri}
    sha256: {sha256}
    bin: {program}
    files:
    - from: {name}/{program}
      to: .
    - from: {name}/LICENSE
      to: .
    - from: {name}/NOTICES.txt
      to: .
"""

FORMULA = """\
# typed: strict
# frozen_string_literal: true

# The program palisade, as it was released.
class Palisade < Formula
  desc "Enforces, explains and tests Kubernetes network policies"
  homepage "{repository}"
  version "{version}"
  license "Apache-2.0"

{systems}
  def install
    bin.install "palisade"
    bin.install_symlink "palisade" => "kubectl-palisade"
    bin.install_symlink "palisade" => "kubectl_complete-palisade"
    man1.install Dir["man/*.1"]
    bash_completion.install "completions/palisade.bash" => "palisade"
    zsh_completion.install "completions/_palisade"
    fish_completion.install "completions/palisade.fish"
    doc.install "NOTICES.txt"
  end

  test do
    assert_match version.to_s, shell_output("#{{bin}}/palisade --version")
  end
end
"""

FORMULA_PLATFORM = """\
    on_{cpu} do
      url "{uri}"
      sha256 "{sha256}"
    end
"""


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    dist, version, repository = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    krew, systems, missing = [], {}, []
    for platform, (system, cpu) in PLATFORMS.items():
        windows = platform.startswith("windows")
        name = f"palisade-{version}-{platform}"
        archive = dist / (name + (".zip" if windows else ".tar.gz"))
        if not archive.is_file():
            missing.append(platform)
            continue
        uri = f"{repository}/releases/download/v{version}/{archive.name}"
        sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        os, arch = platform.split("-")
        program = "palisade.exe" if windows else "palisade"
        krew.append(KREW_PLATFORM.format(os=os, arch=arch, uri=uri, sha256=sha256, name=name, program=program))
        if system:
            systems.setdefault(system, []).append(FORMULA_PLATFORM.format(cpu=cpu, uri=uri, sha256=sha256))
    if not krew:
        sys.exit(f"{dist} has no archive of version {version}")
    blocks = "\n".join(f"  on_{system} do\n{''.join(parts)}  end\n" for system, parts in sorted(systems.items(), reverse=True))
    krew_file, formula_file = dist / "palisade.krew.yaml", dist / "palisade.rb"
    krew_file.write_text(KREW.format(version=version, repository=repository, platforms="".join(krew)))
    formula_file.write_text(FORMULA.format(version=version, repository=repository, systems=blocks))
    print(f"{dist}/install.sh, {krew_file.name}, {formula_file.name}: {len(krew)} platforms")
    if missing:
        print(f"left out, because the folder has no archive: {', '.join(missing)}")


if __name__ == "__main__":
    main()
