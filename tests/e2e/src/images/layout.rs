//! An image layout of the Open Container Initiative, as a tar archive.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::BufWriter,
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What containerd calls an image that it imports.
const NAME: &str = "io.containerd.image.name";

/// A part of a file system, as a tar archive.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    archive: Vec<u8>,
    digest: String,
}

/// Collects the files of a [`Layer`].
pub(super) struct LayerBuilder {
    archive: tar::Builder<Vec<u8>>,
    folders: BTreeSet<String>,
}

impl Layer {
    /// One file, without its libraries.
    ///
    /// # Errors
    /// If it can't be read.
    pub(super) fn of_program(file: &Path, path: &str) -> Result<Self> {
        let mut builder = LayerBuilder::default();
        builder.program(file, path)?;
        builder.finish()
    }
}

impl Default for LayerBuilder {
    fn default() -> Self {
        Self { archive: tar::Builder::new(Vec::new()), folders: BTreeSet::new() }
    }
}

impl LayerBuilder {
    /// Adds a copy of a file of the machine that may be executed, at this absolute path.
    ///
    /// # Errors
    /// If it can't be read.
    pub(super) fn program(&mut self, file: &Path, path: &str) -> Result<()> {
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        self.add(path, &content, 0o755)
    }

    /// Adds a file with this content.
    ///
    /// # Errors
    /// If the path is too long for an archive.
    pub(super) fn text(&mut self, path: &str, content: &str) -> Result<()> {
        self.add(path, content.as_bytes(), 0o644)
    }

    /// Adds a folder, with those above it.
    ///
    /// # Errors
    /// If the path is too long for an archive.
    pub(super) fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        let path = path.trim_matches('/');
        if path.is_empty() || !self.folders.insert(path.to_owned()) {
            return Ok(());
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above, 0o755)?;
        }
        let mut header = header(0, mode);
        header.set_entry_type(tar::EntryType::Directory);
        Ok(self.archive.append_data(&mut header, format!("{path}/"), &[][..])?)
    }

    fn add(&mut self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let path = path.trim_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above, 0o755)?;
        }
        Ok(self.archive.append_data(&mut header(content.len(), mode), path, content)?)
    }

    /// Ends the layer.
    ///
    /// # Errors
    /// Never, in memory.
    pub(super) fn finish(self) -> Result<Layer> {
        let archive = self.archive.into_inner()?;
        let digest = digest(&archive);
        Ok(Layer { archive, digest })
    }
}

/// The header of a file of root, without a time: the same files make the same layer.
fn header(size: usize, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// What is started in which layers.
#[derive(Clone, Debug)]
pub(super) struct Image<'a> {
    config: Value,
    layers: Vec<&'a Layer>,
}

impl<'a> Image<'a> {
    /// An image that starts this program; without one, what the pod says.
    #[must_use]
    pub(super) fn new<const N: usize>(entrypoint: [&str; N]) -> Self {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let entrypoint = entrypoint.to_vec();
        Self {
            config: json!({"Env": [path], "WorkingDir": "/", "Entrypoint": entrypoint}),
            layers: Vec::new(),
        }
    }

    /// The arguments where the pod has none.
    #[must_use]
    pub(super) fn arguments<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.config["Cmd"] = json!(arguments.to_vec());
        self
    }

    /// Who starts it where the pod doesn't say.
    #[must_use]
    pub(super) fn user(mut self, user: &str) -> Self {
        self.config["User"] = json!(user);
        self
    }

    /// Adds a layer on top of the others.
    #[must_use]
    pub(super) fn layer(mut self, layer: &'a Layer) -> Self {
        self.layers.push(layer);
        self
    }
}

/// An archive of images that is being written. Layers that images share are in it once.
pub(super) struct Layout {
    archive: tar::Builder<BufWriter<File>>,
    blobs: BTreeSet<String>,
    manifests: Vec<Value>,
}

impl Layout {
    /// Begins an archive.
    ///
    /// # Errors
    /// If the file can't be created.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let archive = tar::Builder::new(BufWriter::new(file));
        Ok(Self { archive, blobs: BTreeSet::new(), manifests: Vec::new() })
    }

    /// Adds an image by these names.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(super) fn add(&mut self, image: &Image<'_>, names: &[&str]) -> Result<()> {
        let mut layers = Vec::new();
        for layer in &image.layers {
            self.blob(&layer.digest, &layer.archive)?;
            layers.push(descriptor(LAYER, &layer.digest, layer.archive.len()));
        }
        let digests: Vec<&str> = image.layers.iter().map(|l| l.digest.as_str()).collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": image.config,
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        let config = self.json(CONFIG, &config)?;
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let manifest = self.json(MANIFEST, &manifest)?;
        for name in names {
            let mut named = manifest.clone();
            named["annotations"] = json!({NAME: name});
            named["platform"] = json!({"architecture": architecture(), "os": "linux"});
            self.manifests.push(named);
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(super) fn finish(mut self) -> Result<()> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests});
        self.file("index.json", &serde_json::to_vec(&index)?)?;
        self.file("oci-layout", &serde_json::to_vec(&json!({"imageLayoutVersion": "1.0.0"}))?)?;
        self.archive.into_inner()?.into_inner()?;
        Ok(())
    }

    fn json(&mut self, kind: &str, value: &Value) -> Result<Value> {
        let bytes = serde_json::to_vec(value)?;
        let digest = digest(&bytes);
        self.blob(&digest, &bytes)?;
        Ok(descriptor(kind, &digest, bytes.len()))
    }

    fn blob(&mut self, digest: &str, content: &[u8]) -> Result<()> {
        if self.blobs.insert(digest.to_owned()) {
            self.file(&format!("blobs/{}", digest.replace(':', "/")), content)?;
        }
        Ok(())
    }

    fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.archive
            .append_data(&mut header(content.len(), 0o644), path, content)
            .context("cannot write the images")
    }
}

fn descriptor(kind: &str, digest: &str, size: usize) -> Value {
    json!({"mediaType": kind, "digest": digest, "size": size})
}

/// The architecture of this machine, in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use super::*;

    /// The files of an archive.
    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().expect("an archive");
        let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.expect("an entry");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("its content");
            (entry.path().expect("its path").display().to_string(), content)
        };
        entries.map(read).collect()
    }

    /// What a descriptor refers to, after comparing it with what the descriptor says of it.
    fn referred<'f>(files: &'f BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'f [u8] {
        let named = descriptor["digest"].as_str().expect("a digest");
        let content = &files[&format!("blobs/{}", named.replace(':', "/"))];
        assert_eq!(named, digest(content));
        assert_eq!(descriptor["size"], content.len());
        content
    }

    #[test]
    fn every_reference_of_the_layout_leads_to_what_it_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut builder = LayerBuilder::default();
        builder.text("/etc/deep/file", "content").expect("a file");
        builder.folder("/tmp", 0o1777).expect("a folder");
        let shared = builder.finish().expect("a layer");
        let own = Layer::of_program(Path::new("/proc/self/exe"), "/bin/program").expect("a layer");

        let path = folder.path().join("images.tar");
        let mut layout = Layout::create(&path).expect("an archive");
        layout
            .add(&Image::new(["/bin/program"]).layer(&shared).layer(&own), &["a:1", "a:2"])
            .expect("an image");
        layout.add(&Image::new([]).arguments(["sh"]).user("1:1").layer(&shared), &["b:1"]).expect("an image");
        layout.finish().expect("the archive");

        let files = files(&fs::read(&path).expect("the archive"));
        assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index: Value = serde_json::from_slice(&files["index.json"]).expect("an index");
        let mut names = Vec::new();
        for manifest in index["manifests"].as_array().expect("manifests") {
            names.push(manifest["annotations"][NAME].as_str().expect("a name").to_owned());
            let manifest: Value = serde_json::from_slice(referred(&files, manifest)).expect("a manifest");
            let config: Value =
                serde_json::from_slice(referred(&files, &manifest["config"])).expect("a config");
            let layers = manifest["layers"].as_array().expect("layers");
            for (layer, id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().expect("ids")) {
                referred(&files, layer);
                // Uncompressed layers are what their digests are of.
                assert_eq!(&layer["digest"], id);
            }
        }
        assert_eq!(names, ["a:1", "a:2", "b:1"]);
        // Two layers, two configurations, two manifests, and the two files of the layout itself.
        assert_eq!(files.len(), 8);
    }

    #[test]
    fn folders_come_before_their_files_and_once() {
        let mut builder = LayerBuilder::default();
        builder.text("/a/b/one", "").expect("a file");
        builder.text("/a/b/two", "").expect("a file");
        let layer = builder.finish().expect("a layer");
        let mut archive = tar::Archive::new(layer.archive.as_slice());
        let paths = archive
            .entries()
            .expect("entries")
            .map(|e| e.expect("one").path().expect("path").display().to_string());
        assert_eq!(paths.collect::<Vec<_>>(), ["a/", "a/b/", "a/b/one", "a/b/two"]);
    }
}
