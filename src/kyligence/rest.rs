//! Asking the running service over its REST interface.
//!
//! The interface is unfriendly: without credentials it redirects, with wrong ones it answers HTML, a proxy or a server
//! that is still starting answers 200 with a login page, an answer may come slowly, in part, or never. So an answer
//! counts only if it is JSON of the expected shape; everything else is an error that says what came instead. Every
//! request has a time limit over all of it, and no answer is read without a limit of bytes.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::home::{Home, Layout};
use super::loopback::agent;
use super::secrets::mask_text;
use super::version::Product;

/// How long one request may take, from connecting to the last byte of the answer.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// The longest answer that is read. A page of a hundred jobs with their steps has some hundred kilobytes.
const ANSWER_LIMIT_BYTES: u64 = 16 << 20;

/// Elements of one page of a list.
const PAGE: usize = 100;

/// How much of a refusal's text is repeated.
const QUOTED_CHARS: usize = 200;

/// A user of the product. `Debug` shows the name alone.
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// A user and their password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into() }
    }

    fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Which form of the interface a release speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// KAP 2 and Kyligence Enterprise 3: answers in an envelope, jobs counted.
    V2,
    /// Kylin 2 and 3: bare answers; the other forms are refused with 406.
    Bare,
    /// Kyligence Enterprise 4 and Kylin 5: as `V2`, with other names.
    V4,
}

impl Dialect {
    /// The form that a home's service speaks.
    pub fn of(home: &Home) -> Self {
        match (home.layout, home.identity.product) {
            (Layout::Server, _) => Self::V4,
            (Layout::Tomcat, Product::Kylin) => Self::Bare,
            (Layout::Tomcat, _) => Self::V2,
        }
    }

    fn accept(self) -> &'static str {
        match self {
            Self::V2 => "application/vnd.apache.kylin-v2+json",
            Self::Bare => "application/json",
            Self::V4 => "application/vnd.apache.kylin-v4-public+json",
        }
    }
}

/// Why the service could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestError {
    /// kytx has no TLS stack.
    #[error("the service speaks TLS on port {port}, which kytx does not")]
    Tls {
        /// The port.
        port: u16,
    },
    /// Refused, cut, too slow.
    #[error("no answer on port {port}: {why}")]
    NoAnswer {
        /// The port.
        port: u16,
        /// Why.
        why: String,
    },
    /// Redirected to the login page, or 401, or 403.
    #[error("the service does not accept this user and password (HTTP status {status})")]
    NotAccepted {
        /// The status.
        status: u16,
    },
    /// Another status than 200.
    #[error("HTTP status {status}{}", said(message))]
    Status {
        /// The status.
        status: u16,
        /// What the answer says, if it says anything; without secrets.
        message: String,
    },
    /// 200, and no JSON.
    #[error(
        "HTTP status 200 with a page instead of data: a login page, a proxy, or a service that still starts"
    )]
    Page,
    /// JSON of another shape than documented.
    #[error("the answer has no {missing}")]
    Shape {
        /// What it has not.
        missing: &'static str,
    },
    /// The envelope says no.
    #[error("the service refuses with code `{code}`{}", said(message))]
    Refused {
        /// The code.
        code: String,
        /// What it says; without secrets.
        message: String,
    },
}

impl RestError {
    /// Whether it may be the question that the service does not like, and not the asker or the service's own state.
    pub fn is_about_the_question(&self) -> bool {
        match self {
            // 502 to 504 are those of a service that is not there or not ready.
            Self::Status { status, .. } => !(502..=504).contains(status),
            Self::Refused { .. } => true,
            _ => false,
        }
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// A service, and who asks it.
#[derive(Clone, Debug)]
pub struct Rest {
    /// Its port on this host.
    pub port: u16,
    /// Whether it speaks TLS there.
    pub tls: bool,
    /// The form it speaks.
    pub dialect: Dialect,
    /// Who asks.
    pub credentials: Credentials,
    /// How long one request may take.
    pub limit: Duration,
}

impl Rest {
    /// The service of a home.
    pub fn of(home: &Home, credentials: Credentials) -> Self {
        let readiness = &home.readiness;
        let (port, tls) = (readiness.port, readiness.tls);
        Self { port, tls, dialect: Dialect::of(home), credentials, limit: REQUEST_LIMIT }
    }

    /// What a path below `/kylin/api` answers, out of its envelope.
    pub fn get(&self, path: &str) -> Result<Value, RestError> {
        let request = self.agent()?.get(self.url(path));
        self.finish(self.with_headers(request).call())
    }

    /// The same for a change.
    pub fn put(&self, path: &str, body: &Value) -> Result<Value, RestError> {
        let request = self.agent()?.put(self.url(path));
        let request = self.with_headers(request).header("Content-Type", "application/json;charset=utf-8");
        self.finish(request.send(body.to_string()))
    }

    /// The same for a question that takes a body.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, RestError> {
        let request = self.agent()?.post(self.url(path));
        let request = self.with_headers(request).header("Content-Type", "application/json;charset=utf-8");
        self.finish(request.send(body.to_string()))
    }

    /// Every element of a list that comes in pages, at most `limit` of them. `name` is what an envelope calls the list.
    pub fn all(&self, path: &str, name: &str, limit: usize) -> Result<Vec<Value>, RestError> {
        let mut found: Vec<Value> = Vec::new();
        for page in 0.. {
            let query = match self.dialect {
                Dialect::V2 => format!("pageOffset={page}&pageSize={PAGE}"),
                Dialect::Bare => format!("offset={}&limit={PAGE}", page * PAGE),
                Dialect::V4 => format!("page_offset={page}&page_size={PAGE}"),
            };
            let answer = self.get(&format!("{path}?{query}"))?;
            let (list, total) = list_of(&answer, name).ok_or(RestError::Shape { missing: "list" })?;
            // A service that knows no pages answers everything each time.
            if list.is_empty() || found.last() == list.last() {
                break;
            }
            found.extend(list.iter().cloned());
            if list.len() < PAGE || found.len() >= limit || total.is_some_and(|total| found.len() >= total) {
                break;
            }
        }
        Ok(found)
    }

    fn agent(&self) -> Result<ureq::Agent, RestError> {
        if self.tls {
            return Err(RestError::Tls { port: self.port });
        }
        Ok(agent(self.limit))
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/kylin/api{path}", self.port)
    }

    fn with_headers<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        request
            .header("Accept", self.dialect.accept())
            .header("Accept-Language", "en")
            .header("Authorization", &self.credentials.basic())
    }

    fn finish(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, RestError> {
        let no_answer = |why: ureq::Error| RestError::NoAnswer { port: self.port, why: why.to_string() };
        let mut response = response.map_err(no_answer)?;
        let status = response.status().as_u16();
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_LIMIT_BYTES)
            .read_to_string()
            .map_err(no_answer)?;
        self.judge(status, &body)
    }

    /// What an answer says, or why it is none.
    fn judge(&self, status: u16, body: &str) -> Result<Value, RestError> {
        let value: Option<Value> = serde_json::from_str(body).ok();
        match status {
            200 => {}
            301..=303 | 307 | 308 | 401 | 403 => return Err(RestError::NotAccepted { status }),
            _ => {
                let message = value.as_ref().map(message_of).unwrap_or_default();
                return Err(RestError::Status { status, message });
            }
        }
        let value = value.ok_or(RestError::Page)?;
        if self.dialect == Dialect::Bare {
            return Ok(value);
        }
        let code = value.get("code").and_then(Value::as_str).ok_or(RestError::Shape { missing: "`code`" })?;
        if code != "000" {
            return Err(RestError::Refused { code: quoted(code), message: message_of(&value) });
        }
        value.get("data").cloned().ok_or(RestError::Shape { missing: "`data`" })
    }
}

/// A list in an answer, bare or under its name, and how many elements there are in all, where that is said.
fn list_of<'a>(answer: &'a Value, name: &str) -> Option<(&'a Vec<Value>, Option<usize>)> {
    if let Some(list) = answer.as_array() {
        return Some((list, None));
    }
    let list = [name, "value"].iter().find_map(|name| answer.get(*name)?.as_array())?;
    let total = ["size", "total_size"].iter().find_map(|name| answer.get(*name)?.as_u64());
    Some((list, total.map(|total| usize::try_from(total).unwrap_or(usize::MAX))))
}

/// What a refusal says, without secrets and the stack trace.
fn message_of(value: &Value) -> String {
    ["msg", "exception"].into_iter().find_map(|key| value.get(key)?.as_str()).map(quoted).unwrap_or_default()
}

fn quoted(text: &str) -> String {
    mask_text(text.lines().next().unwrap_or_default()).chars().take(QUOTED_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(dialect: Dialect) -> Rest {
        let credentials = Credentials::new("ADMIN", "KYLIN");
        Rest { port: 1, tls: false, dialect, credentials, limit: REQUEST_LIMIT }
    }

    #[test]
    fn credentials_are_encoded_for_the_wire_and_hidden_elsewhere() {
        let credentials = Credentials::new("ADMIN", "KYLIN");
        assert_eq!(credentials.basic(), "Basic QURNSU46S1lMSU4=");
        assert!(!format!("{:?}", rest(Dialect::V2)).contains("KYLIN"));
    }

    #[test]
    fn only_json_of_the_right_shape_is_an_answer() {
        let v2 = rest(Dialect::V2);
        let good = v2.judge(200, r#"{"code":"000","data":{"size":0},"msg":""}"#).unwrap();
        assert_eq!(good["size"], 0);
        assert_eq!(v2.judge(200, "<html>login</html>"), Err(RestError::Page));
        assert_eq!(v2.judge(302, ""), Err(RestError::NotAccepted { status: 302 }));
        assert_eq!(v2.judge(401, "<html></html>"), Err(RestError::NotAccepted { status: 401 }));
        assert_eq!(v2.judge(200, "{}"), Err(RestError::Shape { missing: "`code`" }));
        assert_eq!(v2.judge(200, r#"{"code":"000"}"#), Err(RestError::Shape { missing: "`data`" }));
        let refused = v2.judge(200, r#"{"code":"999","data":null,"msg":"no password=x\nat Some.class"}"#);
        assert_eq!(refused.unwrap_err().to_string(), "the service refuses with code `999`: no password=***");
        let failed = v2.judge(500, r#"{"code":"999","msg":"bad filter","stacktrace":"x"}"#).unwrap_err();
        assert_eq!(failed.to_string(), "HTTP status 500: bad filter");
        assert!(failed.is_about_the_question());
        assert!(!v2.judge(503, "<html></html>").unwrap_err().is_about_the_question());
        assert!(!RestError::Page.is_about_the_question());
        assert_eq!(rest(Dialect::Bare).judge(200, "[]").unwrap(), serde_json::json!([]));
    }

    #[test]
    fn tls_is_told_and_not_tried() {
        let mut asked = rest(Dialect::V4);
        asked.tls = true;
        assert_eq!(asked.get("/jobs"), Err(RestError::Tls { port: 1 }));
    }
}
