//! Requests to the hub and to the hosts it sends us to.
//!
//! Redirects are followed here, not by the HTTP library: the token goes to the hub's own scheme, host and port only,
//! and the answer before a redirect says what a file is. Answers become an [`Error`], or a [`Failure`] worth a
//! second try.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::retry::{Failure, Patience, retry_after};
use crate::settings::{Settings, Token};
use crate::{Error, RepoId};

/// The most redirects of one request.
const MOST_REDIRECTS: usize = 5;
/// The most of a server's explanation that is shown, in characters.
const MOST_MESSAGE: usize = 200;

/// Speaks HTTP with one hub.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
    patience: Patience,
}

/// An answer that is no redirect.
#[derive(Debug)]
pub struct Reply {
    /// Where it came from in the end.
    pub url: String,
    /// The answer.
    pub response: Response<Body>,
}

impl Reply {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }
}

impl Client {
    /// A client for the hub of `settings`.
    pub fn new(settings: &Settings, patience: Patience) -> Result<Self, Error> {
        settings.token.as_ref().map_or(Ok(()), Token::check)?;
        let roots = settings.certificates.as_deref().map_or(Ok(RootCerts::WebPki), roots)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("carat/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.silence))
            .timeout_per_read(Some(patience.silence))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        Ok(Client {
            agent: config.into(),
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
            patience,
        })
    }

    /// The hub's address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How long to wait and how often to try.
    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Whether `url` is the hub's own.
    pub fn is_hub(&self, url: &str) -> bool {
        origin(url).eq_ignore_ascii_case(origin(&self.endpoint))
    }

    /// Bytes of `url`, wherever it leads; all of it without a range.
    pub fn get(&self, url: &str, range: Option<&Range<u64>>) -> Result<Reply, Failure> {
        let mut url = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.agent.get(&url).header("accept-encoding", "identity");
            if let Some(range) = range {
                request = request.header("range", format!("bytes={}-{}", range.start, range.end - 1));
            }
            if let Some(bearer) = self.bearer(&url) {
                request = request.header("authorization", bearer);
            }
            let response = request.call().map_err(|error| failure(&url, error))?;
            match redirect(&url, &response)? {
                None => return Ok(Reply { url, response }),
                Some(next) => url = next,
            }
        }
        Err(too_many_redirects(&url))
    }

    /// The headers of `url`, those of each redirect before those after it. Where a redirect to another host says what
    /// the file is (`x-linked-etag`), it is not followed; mirrors redirect to the hub they mirror without saying it.
    pub fn head(&self, url: &str) -> Result<(Reply, Vec<HeaderMap>), Failure> {
        let mut url = url.to_owned();
        let mut headers = Vec::new();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.agent.head(&url).header("accept-encoding", "identity");
            if let Some(bearer) = self.bearer(&url) {
                request = request.header("authorization", bearer);
            }
            let response = request.call().map_err(|error| failure(&url, error))?;
            headers.push(response.headers().clone());
            match redirect(&url, &response)? {
                Some(next) if self.is_hub(&next) || !response.headers().contains_key("x-linked-etag") => url = next,
                _ => return Ok((Reply { url, response }, headers)),
            }
        }
        Err(too_many_redirects(&url))
    }

    fn bearer(&self, url: &str) -> Option<String> {
        let token = self.token.as_ref().filter(|_| self.is_hub(url))?;
        Some(format!("Bearer {}", token.secret()))
    }

    /// What an answer that isn't a success means for `what` of `repo`.
    pub fn refusal(&self, repo: &RepoId, what: &str, reply: Reply) -> Failure {
        let status = reply.status();
        let url = without_query(&reply.url).to_owned();
        let message = message(reply.response.headers(), status);
        // Another host holds bytes the hub has just sent us for: what it refuses now it may give next time.
        if is_worth_retrying(status) || !self.is_hub(&reply.url) {
            let wait = header(reply.response.headers(), "retry-after");
            let wait = wait.and_then(|value| retry_after(value, SystemTime::now()));
            let reason = format!("answered {status}: {message}");
            return Failure::Again { url, reason, status: Some(status), wait };
        }
        let page = format!("{}/{repo}", self.endpoint);
        Failure::Final(match status {
            401 => Error::Unauthorized { repo: repo.to_string(), with_token: self.token.is_some(), page },
            403 => Error::Forbidden { repo: repo.to_string(), message, page },
            404 => Error::NotFound { what: what.to_owned(), url },
            _ => Error::Status { url, status, message },
        })
    }
}

/// A header's text.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A name or path in a URL: what isn't plain is escaped, slashes stay.
pub fn escaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            text.push(byte.into());
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
}

/// Scheme, host and port.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

/// Signed addresses have secrets in their query.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// Where a redirect leads; `None` if the answer is none.
fn redirect(url: &str, response: &Response<Body>) -> Result<Option<String>, Failure> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let answer = |why: String| Failure::Final(Error::Answer { url: without_query(url).into(), why });
    let Some(location) = header(response.headers(), "location") else {
        return Err(answer(format!("a redirect ({}) without Location", response.status().as_u16())));
    };
    let next = absolute(url, location);
    if url.starts_with("https://") && !next.starts_with("https://") {
        return Err(answer(format!("a redirect from https to {}", origin(&next))));
    }
    Ok(Some(next))
}

/// `location` as seen from `url`.
fn absolute(url: &str, location: &str) -> String {
    // An address in the query of a path is none of its own.
    let is_scheme = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if location.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme)) {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{}://{rest}", url.split("://").next().unwrap_or_default())
    } else if location.starts_with('/') {
        format!("{}{location}", origin(url))
    } else {
        let base = without_query(url);
        let end = base.rfind('/').filter(|&at| at >= origin(url).len()).unwrap_or(base.len());
        format!("{}/{location}", &base[..end])
    }
}

fn too_many_redirects(url: &str) -> Failure {
    let why = format!("more than {MOST_REDIRECTS} redirects");
    Failure::Final(Error::Answer { url: without_query(url).into(), why })
}

/// Timeouts, busy and broken servers, and files that are being replaced (416).
fn is_worth_retrying(status: u16) -> bool {
    matches!(status, 408 | 416 | 425 | 429 | 500..=599)
}

/// The hub explains itself in a header.
fn message(headers: &HeaderMap, status: u16) -> String {
    let said = header(headers, "x-error-message").map(|text| text.chars().take(MOST_MESSAGE).collect::<String>());
    let said = said.filter(|text| !text.is_empty());
    let reason = || ureq::http::StatusCode::from_u16(status).ok()?.canonical_reason().map(str::to_owned);
    said.or_else(reason).unwrap_or_else(|| "no explanation".into())
}

/// A request without an answer.
fn failure(url: &str, error: ureq::Error) -> Failure {
    let url = without_query(url);
    match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            Failure::Final(Error::Answer { url: url.into(), why: format!("this is no address: {error}") })
        }
        ureq::Error::HostNotFound => Failure::again(url, "there is no host by that name, or no network"),
        // What TLS finds wrong comes as invalid data of the connection.
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Failure::Final(Error::Insecure { url: url.into(), why: error.to_string() })
        }
        ureq::Error::Io(error) => Failure::again(url, error.to_string()),
        error => Failure::again(url, error.to_string()),
    }
}

/// The certificates of a PEM file.
fn roots(path: &Path) -> Result<RootCerts, Error> {
    let pem = fs::read(path).map_err(Error::io(path))?;
    let wrong = |why: String| Error::Certificates { path: path.into(), why };
    let mut found: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(wrong("there is none".into()));
    }
    Ok(RootCerts::Specific(Arc::new(found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_end_before_the_path() {
        for url in ["https://h:8/a/b?c", "https://h:8?c", "https://h:8"] {
            assert_eq!(origin(url), "https://h:8");
        }
        assert_eq!(without_query("https://h/a?X-Amz-Signature=s"), "https://h/a");
    }

    #[test]
    fn locations_may_be_relative() {
        let from = "https://h/a/b?q=/x";
        for (location, expected) in [
            ("https://cdn/x", "https://cdn/x"),
            ("//cdn/x", "https://cdn/x"),
            ("/x/y", "https://h/x/y"),
            ("x", "https://h/a/x"),
            ("/x?to=https://cdn/y", "https://h/x?to=https://cdn/y"),
            ("x?to=https://cdn/y", "https://h/a/x?to=https://cdn/y"),
        ] {
            assert_eq!(absolute(from, location), expected);
        }
        assert_eq!(absolute("https://h", "x"), "https://h/x");
    }

    #[test]
    fn paths_are_escaped_byte_by_byte() {
        assert_eq!(escaped("a b/ü#?.json"), "a%20b/%C3%BC%23%3F.json");
    }

    #[test]
    fn a_certificate_file_without_certificates_is_refused() {
        let path = std::env::temp_dir().join(format!("carat-certificates-{}", std::process::id()));
        fs::write(&path, "nothing here").unwrap();
        let error = roots(&path).unwrap_err().to_string();
        fs::remove_file(&path).unwrap();
        assert!(error.contains("expected certificates in PEM: there is none"), "{error}");
        assert!(roots(&path).unwrap_err().to_string().contains("No such file"));
    }
}
