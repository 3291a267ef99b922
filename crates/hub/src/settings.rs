//! Where the hub and the cache are, from the environment variables that other tools read as well.
//!
//! Source of names and defaults: `huggingface_hub/constants.py` and `utils/_auth.py` (2.4.0).

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use crate::Error;

const ENDPOINT: &str = "https://huggingface.co";

/// A token that says who asks. It never shows in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    secret: String,
    origin: String,
}

impl Token {
    /// A token from `origin`, a variable or file. White space around it and line breaks, as files have, are not part of
    /// it. `None` if nothing is left.
    pub fn new(text: &str, origin: impl Into<String>) -> Option<Self> {
        let secret = text.replace(['\r', '\n'], "").trim().to_owned();
        (!secret.is_empty()).then(|| Token { secret, origin: origin.into() })
    }

    /// An error if it has characters that a bearer token can't have (RFC 6750 section 2.1) and a header may not hold.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = self.secret.chars().find(|c| !c.is_ascii_graphic());
        wrong.map_or(Ok(()), |found| Err(Error::Token { origin: self.origin.clone(), found }))
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// How to reach the hub, and where its files go.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub's address without a slash at the end: `HF_ENDPOINT`.
    pub endpoint: String,
    /// Who asks: `HF_TOKEN`, or the file `HF_TOKEN_PATH`, or `HF_HOME/token`.
    pub token: Option<Token>,
    /// The cache: `HF_HUB_CACHE`, or `HF_HOME/hub`, or `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// Whether the network must not be used: `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// Certificates to trust instead of the built-in ones, in PEM: `SSL_CERT_FILE`.
    pub certificates: Option<PathBuf>,
}

impl Settings {
    /// From this process's environment.
    ///
    /// # Errors
    /// If there is neither a home directory nor a variable that names the cache.
    pub fn from_env() -> Result<Self, Error> {
        Self::from(|name| std::env::var_os(name), std::env::home_dir())
    }

    fn from(var: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Result<Self, Error> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let path = |name: &str| var(name).map(|value| expand(value.into(), home.as_ref()));
        let text = |name: &str| var(name).and_then(|value| value.into_string().ok());
        let hf_home = path("HF_HOME").or_else(|| {
            let caches = path("XDG_CACHE_HOME").or_else(|| Some(home.as_ref()?.join(".cache")))?;
            Some(caches.join("huggingface"))
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let cache = cache.or_else(|| Some(hf_home.as_ref()?.join("hub")));
        let cache = cache.ok_or_else(|| Error::Io {
            path: "HF_HOME".into(),
            source: std::io::Error::other("no home directory: expected this variable to name one for models"),
        })?;
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(hf_home?.join("token")));
        let token_in_file = || {
            let path = token_file?;
            Token::new(&fs::read_to_string(&path).ok()?, path.display().to_string())
        };
        let token = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(|name| Token::new(&text(name)?, name));
        let is_on = |name: &str| text(name).is_some_and(|value| is_true(&value));
        Ok(Settings {
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into()).trim_end_matches('/').to_owned(),
            token: token.or_else(token_in_file),
            cache,
            offline: is_on("HF_HUB_OFFLINE"),
            certificates: path("SSL_CERT_FILE"),
        })
    }
}

/// The values that other tools take for yes.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

/// A leading `~` is the home directory.
fn expand(path: PathBuf, home: Option<&PathBuf>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> Settings {
        let var = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
        Settings::from(var, Some("/home/u".into())).unwrap()
    }

    #[track_caller]
    fn check_cache(vars: &[(&str, &str)], expected: &str) {
        assert_eq!(settings(vars).cache, PathBuf::from(expected));
    }

    #[test]
    fn the_cache_is_where_other_tools_have_it() {
        check_cache(&[], "/home/u/.cache/huggingface/hub");
        check_cache(&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub");
        check_cache(&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/h/hub");
        check_cache(&[("HF_HOME", "~/h")], "/home/u/h/hub");
        check_cache(&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old");
        check_cache(&[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/c");
        check_cache(&[("HF_HOME", "")], "/home/u/.cache/huggingface/hub");
    }

    #[test]
    fn without_a_home_the_variable_is_asked_for() {
        let error = Settings::from(|_| None, None).unwrap_err().to_string();
        assert!(error.starts_with("HF_HOME: "), "{error}");
    }

    #[test]
    fn the_token_is_the_variable_or_the_file() {
        let dir = std::env::temp_dir().join(format!("carat-token-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("token"), "hf_file\n").unwrap();
        let home = ("HF_HOME", dir.to_str().unwrap());
        let token = |vars: &[(&str, &str)]| settings(vars).token.map(|t| t.secret().to_owned());
        assert_eq!(token(&[home]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[home, ("HF_TOKEN", " hf_var ")]).as_deref(), Some("hf_var"));
        assert_eq!(token(&[home, ("HF_TOKEN", " ")]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[home, ("HF_TOKEN_PATH", "/no/such/file")]), None);
        // As `huggingface_hub/utils/_auth.py` cleans it.
        assert_eq!(token(&[home, ("HF_TOKEN", "hf_\r\nvar\n")]).as_deref(), Some("hf_var"));
        fs::write(dir.join("token"), "hf_\u{fffd}file").unwrap();
        let error = settings(&[home]).token.unwrap().check().unwrap_err().to_string();
        assert!(error.starts_with(dir.join("token").to_str().unwrap()) && error.contains('\u{fffd}'), "{error}");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_token_that_no_request_can_carry_is_refused() {
        for (text, found) in [("hf_a\tb", "'\\t'"), ("hf_a b", "' '"), ("hf_a\u{7f}", "'\\u{7f}'"), ("hf_ä", "'ä'")] {
            let error = settings(&[("HF_TOKEN", text)]).token.unwrap().check().unwrap_err().to_string();
            assert_eq!(error, format!("HF_TOKEN: expected a token of visible ASCII characters, found {found} in it"));
        }
        settings(&[("HF_TOKEN", "hf_a-._~+/=")]).token.unwrap().check().unwrap();
    }

    #[test]
    fn debug_output_keeps_the_token_secret() {
        let settings = settings(&[("HF_TOKEN", "hf_secret")]);
        assert!(!format!("{settings:?}").contains("hf_secret"));
    }

    #[test]
    fn endpoint_and_offline_are_read() {
        let s = settings(&[("HF_ENDPOINT", "http://mirror:8080/hub/"), ("HF_HUB_OFFLINE", "yes")]);
        assert_eq!((s.endpoint.as_str(), s.offline), ("http://mirror:8080/hub", true));
        let s = settings(&[("HF_HUB_OFFLINE", "0")]);
        assert_eq!((s.endpoint.as_str(), s.offline), (ENDPOINT, false));
    }
}
