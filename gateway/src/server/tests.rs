//! The server over real sockets, spoken to in raw HTTP.

use super::*;
use crate::error::{S3Code, S3Error};
use crate::payload::{Payload, PayloadConfig, PayloadMode};
use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

/// Answers by path, so that each test reads as its request.
#[derive(Default)]
struct ByPath {
    entered: Notify,
    leave: Notify,
    dropped: Arc<Notify>,
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl Handler for ByPath {
    async fn handle(&self, request: Request<RequestBody>, conn: ConnInfo) -> Response<ResponseBody> {
        let is_head = request.method() == Method::HEAD;
        let refused = |code| S3Error::new(code).into_response(&conn.request_id, is_head);
        match request.uri().path() {
            "/echo" => {
                let (parts, body) = request.into_parts();
                let payload = Payload::new(PayloadMode::Unsigned, &parts.headers, body, PayloadConfig::default());
                match payload.expect("no framing").read_all(1 << 20).await {
                    Ok(bytes) => Response::new(ResponseBody::full(bytes)),
                    Err(error) => error.into_response(&conn.request_id, is_head),
                }
            }
            "/refuse" => refused(S3Code::AccessDenied),
            "/broken" => {
                let parts = [Ok(Bytes::from_static(b"half")), Err(S3Error::new(S3Code::InternalError))];
                Response::new(ResponseBody::stream(8, stream::iter(parts)))
            }
            "/broken-chunked" => {
                let parts = [Ok(Bytes::from_static(b"half")), Err(S3Error::new(S3Code::InternalError))];
                Response::new(ResponseBody::stream_of_unknown_length(stream::iter(parts)))
            }
            "/object" => {
                let mut response =
                    Response::new(if is_head { ResponseBody::empty() } else { ResponseBody::from("12345") });
                response.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("5"));
                response
            }
            "/not-modified" => refused(S3Code::NotModified),
            "/slow" => {
                self.entered.notify_one();
                self.leave.notified().await;
                Response::new(ResponseBody::from("done"))
            }
            "/tls" => Response::new(ResponseBody::full(conn.is_tls.to_string())),
            "/endless" => {
                let piece = Bytes::from(vec![0; 1 << 16]);
                let held = NotifyOnDrop(Arc::clone(&self.dropped));
                let pieces = stream::repeat_with(move || {
                    let _ = &held;
                    Ok(piece.clone())
                });
                Response::new(ResponseBody::stream_of_unknown_length(pieces))
            }
            _ => refused(S3Code::NoSuchKey),
        }
    }
}

struct Running {
    address: SocketAddr,
    handler: Arc<ByPath>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(config: ServerConfig, tls: Option<Arc<Tls>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (handler, shutdown) = (Arc::new(ByPath::default()), CancellationToken::new());
        let task = tokio::spawn(serve(listener, tls, handler.clone(), config, shutdown.clone()));
        Self { address, handler, shutdown, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connect")
    }

    /// Sends `request` and reads until the server closes.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answer");
        answer
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("ended");
    }
}

/// Reads one response's head and, by its Content-Length, its body.
async fn read_response(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).expect("ASCII").to_ascii_lowercase();
    let len = head
        .split("content-length: ")
        .nth(1)
        .map_or(0, |rest| rest.lines().next().expect("a line").parse::<usize>().expect("a number"));
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok((head, body))
}

#[tokio::test]
async fn every_response_carries_ids_date_and_server() {
    let server = Running::start(ServerConfig::default(), None).await;
    let mut stream = server.connect().await;
    let mut ids = Vec::new();
    for path in ["/object", "/nothing", "/refuse"] {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await.expect("send");
        let (head, body) = read_response(&mut stream).await.expect("answer");
        for header in ["\r\ndate: ", "\r\nserver: valv\r\n", "\r\nx-amz-id-2: ", "\r\nx-amz-request-id: "] {
            assert!(head.contains(header), "{header} in {head}");
        }
        let id = head.split("x-amz-request-id: ").nth(1).expect("id")[..16].to_ascii_uppercase();
        if path != "/object" {
            assert!(String::from_utf8_lossy(&body).contains(&format!("<RequestId>{id}</RequestId>")));
        }
        ids.push(id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "three requests on one connection, each with its own id");
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn head_and_not_modified_have_no_body_and_keep_the_connection() {
    let server = Running::start(ServerConfig::default(), None).await;
    let mut stream = server.connect().await;
    let requests = "HEAD /object HTTP/1.1\r\nHost: h\r\n\r\nHEAD /nothing HTTP/1.1\r\nHost: h\r\n\r\n\
                    GET /not-modified HTTP/1.1\r\nHost: h\r\n\r\nGET /object HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    stream.write_all(requests.as_bytes()).await.expect("send");
    let mut all = String::new();
    stream.read_to_string(&mut all).await.expect("answers");
    let answers: Vec<&str> = all.split("HTTP/1.1 ").skip(1).collect();
    let statuses: Vec<&str> = answers.iter().map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "404", "304", "200"]);
    assert!(answers[0].to_ascii_lowercase().contains("content-length: 5\r\n"), "{}", answers[0]);
    for answer in &answers[..3] {
        assert!(answer.ends_with("\r\n\r\n"), "no body: {answer}");
    }
    assert!(answers[3].ends_with("12345"));
    server.stop().await;
}

#[tokio::test]
async fn no_byte_of_a_body_is_asked_for_before_the_handler_reads_it() {
    let server = Running::start(ServerConfig::default(), None).await;
    let head = |path| format!("PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let mut stream = server.connect().await;
    stream.write_all(head("/echo").as_bytes()).await.expect("send");
    let (interim, _) = read_response(&mut stream).await.expect("interim");
    assert!(interim.starts_with("http/1.1 100"), "{interim}");
    stream.write_all(b"hello").await.expect("send");
    let (answer, body) = read_response(&mut stream).await.expect("answer");
    assert!(answer.starts_with("http/1.1 200") && body == b"hello", "{answer}");

    stream.write_all(head("/refuse").as_bytes()).await.expect("send");
    let (answer, _) = read_response(&mut stream).await.expect("answer");
    assert!(answer.starts_with("http/1.1 403"), "refused without 100: {answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_is_still_sending_hears_why_it_was_refused() {
    let server = Running::start(ServerConfig::default(), None).await;
    let mut stream = server.connect().await;
    // Far more than the sockets' buffers hold, so the client is in the middle of sending when the answer comes.
    let len = 24 << 20;
    let head = format!("PUT /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: {len}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("send");
    let piece = vec![7; 1 << 20];
    for _ in 0..len >> 20 {
        stream.write_all(&piece).await.expect("the server takes it until we have heard");
    }
    let (answer, body) = read_response(&mut stream).await.expect("answer");
    assert!(answer.starts_with("http/1.1 403") && answer.contains("connection: close"), "{answer}");
    assert!(String::from_utf8_lossy(&body).contains("AccessDenied"));
    server.stop().await;
}

#[tokio::test]
async fn a_small_unread_body_does_not_cost_the_connection() {
    let server = Running::start(ServerConfig::default(), None).await;
    let mut stream = server.connect().await;
    stream.set_nodelay(true).expect("socket");
    for (now, later) in [("abc", ""), ("a", "bc"), ("", "abc")] {
        // The rest comes in a segment of its own, when the refusal has been decided.
        let head = format!("PUT /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n{now}");
        stream.write_all(head.as_bytes()).await.expect("send");
        tokio::task::yield_now().await;
        stream.write_all(later.as_bytes()).await.expect("send");
        let (answer, _) = read_response(&mut stream).await.expect("answer");
        assert!(answer.starts_with("http/1.1 403") && !answer.contains("connection: close"), "{answer}");
    }
    // A client that never sends it is answered all the same, and told that the connection ends.
    stream.write_all(b"PUT /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n").await.expect("send");
    let (answer, _) = read_response(&mut stream).await.expect("answer");
    assert!(answer.starts_with("http/1.1 403") && answer.contains("connection: close"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_never_ends_normally() {
    let server = Running::start(ServerConfig::default(), None).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /broken HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("send");
    let error = read_response(&mut stream).await.expect_err("half a body");
    assert!(matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset), "{error}");

    let mut stream = server.connect().await;
    stream.write_all(b"GET /broken-chunked HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("send");
    let mut all = Vec::new();
    // Either an orderly end of the connection or a reset; in both cases the last chunk is missing.
    let _ = stream.read_to_end(&mut all).await;
    assert!(!all.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&all));
    server.stop().await;
}

#[tokio::test]
async fn oversized_and_malformed_heads_are_refused_and_the_server_goes_on() {
    let server = Running::start(ServerConfig::default(), None).await;
    let huge = format!("GET / HTTP/1.1\r\nHost: h\r\nx-amz-meta-a: {}\r\n\r\n", "a".repeat(70 * 1024));
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(300));
    for (request, status) in [
        (huge.as_str(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        (&many, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n", StatusCode::BAD_REQUEST),
        ("\x16\x03\x01 / HTTP/1.1\r\n\r\n", StatusCode::BAD_REQUEST),
    ] {
        let answer = server.exchange(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {}", status.as_u16())), "{answer}");
    }
    let answer = server.exchange("GET /object HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with("12345"));
    server.stop().await;
}

#[tokio::test]
async fn silent_and_stalling_clients_are_closed() {
    let config = ServerConfig {
        header_timeout: Duration::from_millis(50),
        write_stall_timeout: Duration::from_millis(50),
        ..ServerConfig::default()
    };
    let server = Running::start(config, None).await;
    for start in ["", "GET / HTTP/1.1\r\nHost"] {
        assert_eq!(server.exchange(start).await, "", "closed without an answer");
    }
    // This client asks for an endless body and reads none of it: what the body holds is set free.
    let mut stream = server.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("send");
    server.handler.dropped.notified().await;
    server.stop().await;
}

#[tokio::test]
async fn beyond_the_limit_connections_wait() {
    let server = Running::start(ServerConfig { connections_max: 1, ..ServerConfig::default() }, None).await;
    let mut first = server.connect().await;
    first.write_all(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("send");
    server.handler.entered.notified().await;
    let mut second = server.connect().await;
    second.write_all(b"GET /object HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("send");
    assert!(timeout(Duration::from_millis(100), read_response(&mut second)).await.is_err(), "it waits");
    server.handler.leave.notify_one();
    read_response(&mut first).await.expect("answer");
    drop(first);
    let (answer, _) = read_response(&mut second).await.expect("answer");
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    drop(second);
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_lets_requests_end_and_closes_idle_connections() {
    let server = Running::start(ServerConfig::default(), None).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /object HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("send");
    read_response(&mut idle).await.expect("answer");
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("send");
    server.handler.entered.notified().await;
    server.shutdown.cancel();
    assert_eq!(idle.read(&mut [0; 1]).await.expect("closed"), 0);
    server.handler.leave.notify_one();
    let (answer, body) = read_response(&mut busy).await.expect("answer");
    assert!(answer.starts_with("http/1.1 200") && body == b"done", "{answer}");
    server.task.await.expect("ended");
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_at_the_deadline() {
    let config = ServerConfig { drain_timeout: Duration::from_millis(50), ..ServerConfig::default() };
    let server = Running::start(config, None).await;
    let mut stuck = server.connect().await;
    stuck.write_all(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("send");
    server.handler.entered.notified().await;
    server.stop().await;
    assert!(read_response(&mut stuck).await.is_err());
}

#[tokio::test]
async fn tls_is_served_and_garbage_in_its_place_is_dropped() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
    let folder = tempfile::tempdir().expect("folder");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("write");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("write");
    let tls = Arc::new(Tls::load(certificate, key).expect("loaded"));
    let server = Running::start(ServerConfig::default(), Some(tls)).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("root");
    let client = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from("localhost").expect("name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let mut stream = connector.connect(name, server.connect().await).await.expect("handshake");
    stream.write_all(b"GET /tls HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("send");
    let (answer, body) = read_response(&mut stream).await.expect("answer");
    assert!(answer.starts_with("http/1.1 200") && body == b"true", "{answer}");
    drop(stream);

    let mut plain = server.connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("send");
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    server.stop().await;
}
