//! The parameters of a request.

use std::borrow::Cow;

/// The parameters of a request's URL.
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads the part of a URL after the question mark.
    pub(super) fn new(text: Option<&'a str>) -> Self {
        Self(form_urlencoded::parse(text.unwrap_or_default().as_bytes()).collect())
    }

    /// Returns a parameter that may be absent.
    ///
    /// # Errors
    /// When it is given twice.
    pub(super) fn optional(&self, name: &str) -> Result<Option<&str>, String> {
        let mut found = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| &**value);
        let value = found.next();
        if found.next().is_some() { Err(format!("the parameter `{name}` is given twice")) } else { Ok(value) }
    }

    /// Returns a parameter.
    ///
    /// # Errors
    /// When it is absent, or given twice.
    pub(super) fn required(&self, name: &str) -> Result<&str, String> {
        self.optional(name)?.ok_or_else(|| format!("the parameter `{name}` is missing"))
    }

    /// Checks that there are no parameters but these: a misspelled one would be ignored.
    ///
    /// # Errors
    /// When there is another one.
    pub(super) fn only(&self, names: &[&str]) -> Result<(), String> {
        match self.0.iter().find(|(key, _)| !names.contains(&&**key)) {
            None => Ok(()),
            Some((key, _)) if names.is_empty() => Err(format!("unknown parameter `{key}`; there are none")),
            Some((key, _)) => Err(format!("unknown parameter `{key}`; there are: {}", names.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_checked() {
        let query = Query::new(Some("from=shop%2Fweb+x&to=&to=b"));
        assert_eq!(query.required("from"), Ok("shop/web x"));
        assert_eq!(query.optional("after"), Ok(None));
        assert!(query.required("to").unwrap_err().contains("twice"));
        assert!(query.required("after").unwrap_err().contains("missing"));
        assert!(query.only(&["from", "to"]).is_ok());
        assert!(query.only(&["from"]).unwrap_err().contains("unknown parameter `to`"));
        assert!(Query::new(None).only(&[]).is_ok());
    }
}
