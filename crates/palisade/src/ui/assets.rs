//! The built pages, which are part of the program.

/// A file of the pages.
pub(super) struct Asset {
    pub(super) bytes: &'static [u8],
    pub(super) content_type: &'static str,
}

macro_rules! asset {
    ($file:literal, $content_type:literal) => {
        Asset {
            bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../ui/dist/", $file)),
            content_type: $content_type,
        }
    };
}

/// Returns the file at a path.
pub(super) fn at(path: &str) -> Option<Asset> {
    Some(match path {
        "/" => asset!("index.html", "text/html; charset=utf-8"),
        "/app.js" => asset!("app.js", "text/javascript; charset=utf-8"),
        "/app.css" => asset!("app.css", "text/css; charset=utf-8"),
        "/icon.svg" => asset!("icon.svg", "image/svg+xml"),
        "/licenses.txt" => asset!("licenses.txt", "text/plain; charset=utf-8"),
        _ => return None,
    })
}
