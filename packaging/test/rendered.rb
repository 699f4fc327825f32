# frozen_string_literal: true

# Tests the krew manifest and the Homebrew formula of a release folder: ruby packaging/test/rendered.rb FOLDER
#
# Both name each archive with its digest and what is in it. The formula installs into a folder, by stand-ins for the words of Homebrew
# that it uses; Homebrew itself is not needed.
require "digest"
require "fileutils"
require "pathname"
require "tmpdir"
require "yaml"

DIST = Pathname(ARGV.fetch(0)).realpath

def check(what, truth)
  abort "rendered.rb: #{what}" unless truth
end

# The archive behind an address: it exists, and has this digest.
def archive(address, digest)
  file = DIST / address.split("/").last
  check "#{address}: no such file in #{DIST}", file.file?
  check "#{address}: the digest is not that of the file", Digest::SHA256.file(file).hexdigest == digest
  check "#{address}: no release has this address", address.end_with?("/releases/download/v#{VERSION}/#{file.basename}")
  file
end

manifest = YAML.safe_load((DIST / "palisade.krew.yaml").read)
spec = manifest.fetch("spec")
VERSION = spec.fetch("version").delete_prefix("v")
check "krew: apiVersion", manifest["apiVersion"] == "krew.googlecontainertools.github.com/v1alpha2"
check "krew: kind", manifest["kind"] == "Plugin"
check "krew: the name is that of the file", manifest.dig("metadata", "name") == "palisade"
check "krew: version", spec["version"].match?(/\Av\d+\.\d+\.\d+/)
# krew prints it in a table, and its index refuses more than 50 characters.
check "krew: shortDescription", (1..50).cover?(spec.fetch("shortDescription").length)
check "krew: homepage and description", [spec["homepage"], spec["description"]].all? { |text| text.to_s != "" }
platforms = spec.fetch("platforms")
check "krew: one platform twice", platforms.map { |one| one["selector"] }.uniq.length == platforms.length
platforms.each do |one|
  labels = one.dig("selector", "matchLabels")
  check "krew: selector", %w[linux darwin windows].include?(labels["os"]) && %w[amd64 arm64].include?(labels["arch"])
  file = archive(one.fetch("uri"), one.fetch("sha256"))
  next unless file.to_s.end_with?(".tar.gz")

  inside = `tar -tzf #{file}`.lines.map(&:chomp)
  one.fetch("files").each { |entry| check "krew: #{entry["from"]} is not in #{file}", inside.include?(entry["from"]) }
  check "krew: bin", one.fetch("files").any? { |entry| File.basename(entry["from"]) == one["bin"] }
end

# What Homebrew gives a formula, as much as this one uses.
class Formula
  class << self
    attr_reader :chosen, :tested

    %w[desc homepage license].each { |word| define_method(word) { |_text| nil } }
    def version(text = nil) = text ? @version = text : @version
    def on_linux = @system = "linux" && yield
    def on_macos = @system = "macos" && yield
    def on_intel = yield
    def on_arm = yield
    def url(address) = (@urls ||= []) << address
    def sha256(digest) = (@digests ||= []) << digest
    def downloads = @urls.zip(@digests)
    def test(&block) = @tested = block
  end

  # A folder of the installation.
  class Folder
    def initialize(path) = @path = path.tap(&:mkpath)
    def to_s = @path.to_s

    def install(*what)
      what.flatten.each do |one|
        from, to = one.is_a?(Hash) ? one.first : [one, File.basename(one)]
        FileUtils.cp(from, @path / to)
      end
    end

    def install_symlink(what) = what.each { |from, to| FileUtils.ln_s(from, @path / to) }
  end

  def initialize(prefix)
    folders = { bin: "bin", man1: "share/man/man1", bash_completion: "etc/bash_completion.d", zsh_completion: "share/zsh/site-functions",
                fish_completion: "share/fish/vendor_completions.d", doc: "share/doc/palisade" }
    folders.each { |name, path| define_singleton_method(name) { Folder.new(prefix / path) } }
  end

  def version = self.class.version
  def shell_output(command) = `#{command}`
  def assert_match(expected, found) = check("the formula's test: #{found}", found.include?(expected))
end

load DIST / "palisade.rb"
check "formula: version", Palisade.version == VERSION
files = Palisade.downloads.map { |address, digest| archive(address, digest) }
check "formula: one archive twice", files.uniq.length == files.length
machine = { "x86_64" => "amd64", "aarch64" => "arm64" }.fetch(`uname -m`.chomp)
ours = files.find { |file| file.to_s.include?("linux-#{machine}") }
check "formula: nothing for this machine", ours
Dir.mktmpdir do |folder|
  system("tar", "-xzf", ours.to_s, "-C", folder, exception: true)
  prefix = Pathname(folder) / "prefix"
  formula = Palisade.new(prefix)
  Dir.chdir(Dir["#{folder}/palisade-*"].first) { formula.install }
  formula.instance_eval(&Palisade.tested)
  check "formula: the plugin", `#{prefix}/bin/kubectl-palisade can --help`.include?("Usage: kubectl palisade can")
  check "formula: manual pages", (prefix / "share/man/man1/palisade.1").file?
end
puts "krew manifest: #{platforms.length} platforms; formula: #{files.length}, installed and tested here"
