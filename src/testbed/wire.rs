//! Requests and answers of the stand-in's service, as they go over the wire.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

/// What is asked.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) authorization: String,
    pub(super) accept: String,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn read(connection: &TcpStream) -> io::Result<Self> {
        let mut reader = BufReader::new(connection);
        let mut lines = reader.by_ref().lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let word = |at| first.split(' ').nth(at).unwrap_or_default().to_owned();
        let mut request = Self {
            method: word(0),
            path: word(1),
            authorization: String::new(),
            accept: String::new(),
            body: Vec::new(),
        };
        let mut body_bytes = 0;
        for line in lines {
            let line = line?;
            match line.split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                    value.trim().clone_into(&mut request.authorization);
                }
                Some((name, value)) if name.eq_ignore_ascii_case("accept") => {
                    value.trim().clone_into(&mut request.accept);
                }
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    body_bytes = value.trim().parse().unwrap_or(0);
                }
                None if line.is_empty() => break,
                _ => {}
            }
        }
        // A connection that is closed with something unread in it may take the answer with it.
        reader.take(body_bytes).read_to_end(&mut request.body)?;
        Ok(request)
    }
}

/// What is answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) location: &'static str,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn html(status: u16, body: &str) -> Self {
        Self { status, content_type: "text/html;charset=UTF-8", location: "", body: body.to_owned() }
    }

    pub(super) fn json(body: &Value) -> Self {
        Self {
            status: 200,
            content_type: "application/json;charset=UTF-8",
            location: "",
            body: body.to_string(),
        }
    }

    pub(super) fn write(&self, connection: &mut TcpStream) -> io::Result<()> {
        let mut head = format!(
            "HTTP/1.1 {} Standin\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n",
            self.status,
            self.content_type,
            self.body.len()
        );
        if !self.location.is_empty() {
            head.push_str("Location: ");
            head.push_str(self.location);
            head.push_str("\r\n");
        }
        connection.write_all(format!("{head}\r\n{}", self.body).as_bytes())
    }
}
