//! The frame of an HTML page: its policy, styles, script and data.
//!
//! The Content-Security-Policy names the style and the script by their digests, so nothing else that a name might smuggle in
//! runs, and the page can load and send nothing.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use crate::escape;

const STYLE: &str = include_str!("page/style.css");

/// What makes a page more than a document.
pub(crate) struct Program<'a> {
    /// JSON, which the script finds in the element `data`.
    pub(crate) data: &'a str,
    pub(crate) script: &'a str,
}

/// Returns a page with this title and the markup of its body, in which the elements `style` may have these texts.
pub(crate) fn page(title: &str, body: &str, styles: &[&str], program: Option<&Program<'_>>) -> String {
    let own = styles.iter().chain(&[STYLE]).map(|style| format!("'{}'", digest(style)));
    let styles = own.collect::<Vec<_>>().join(" ");
    let title = escape::markup(title);
    let (allowed, elements) = match program {
        None => ("'none'".to_owned(), String::new()),
        Some(Program { data, script }) => (
            format!("'{}'", digest(script)),
            format!(
                "<script type=\"application/json\" id=\"data\">{}</script>\n<script>{script}</script>\n",
                in_script(data)
            ),
        ),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src {styles}; script-src {allowed}; \
         base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}{elements}</body>\n</html>\n"
    )
}

fn digest(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// Escapes JSON so that it can't end the element that it is in, begin a comment or a script in it, or change how text around
/// it is shown. These characters occur in strings only.
fn in_script(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + json.len() / 32);
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{fffe}' | '\u{ffff}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c if palisade_manifest::needs_escape(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_can_not_leave_its_element() {
        let hostile = "</script><!--<script>\u{2028}\u{202e}&\u{1b}\u{ffff}";
        let json = serde_json::to_string(&[hostile]).unwrap();
        let written = in_script(&json);
        assert!(!written.contains(['<', '>', '&', '\u{2028}', '\u{202e}']), "{written}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&written).unwrap(), [hostile]);
    }

    #[test]
    fn the_policy_allows_what_the_page_has_and_nothing_else() {
        let page = page("t", "", &[], Some(&Program { data: "{}", script: "let a = 1;" }));
        let policy = page.split("Content-Security-Policy").nth(1).unwrap().split('>').next().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        for (element, end) in [("<style>", "</style>"), ("<script>", "</script>")] {
            let text = page.split(element).nth(1).unwrap().split(end).next().unwrap();
            assert!(policy.contains(&digest(text)), "{element}");
        }
    }
}
