//! One HTTP/2 connection, and a call on it.

use std::cell::RefCell;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{Bytes, BytesMut};
use h2::client::{self, SendRequest};
use http::{HeaderMap, Method, Request, Uri, Version};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_local;

use crate::options::Options;

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const CANCELLED: u32 = 1; // grpcio's answer to calls that wait for too long to be accepted
const RESOURCE_EXHAUSTED: u32 = 8;
const UNAVAILABLE: u32 = 14;

pub enum Outcome {
    Taken {
        rejected: u64,
    },
    /// May be tried again.
    Refused,
    Failed(u32, String),
    /// The connection, or the stream, did not live to an answer.
    Broken(String),
}

pub struct Connection {
    target: SocketAddr,
    source: Option<SocketAddr>,
    uri: Uri,
    sender: RefCell<SendRequest<Bytes>>,
}

impl Connection {
    pub async fn open(options: &Options, number: usize) -> Result<Self, Box<dyn Error>> {
        let (target, source) = (options.target, options.hosts.then(|| host(number)));
        let uri = format!("http://{target}{PATH}").parse()?;
        Ok(Self { target, source, uri, sender: RefCell::new(connect(target, source).await?) })
    }

    /// A new connection in the place of a broken one; where that fails too, the next call does.
    pub async fn reopen(&self) {
        if let Ok(sender) = connect(self.target, self.source).await {
            *self.sender.borrow_mut() = sender;
        }
    }

    pub async fn export(&self, message: Bytes) -> Outcome {
        match self.call(message).await {
            Ok((0, _, rejected)) => Outcome::Taken { rejected },
            Ok((CANCELLED | RESOURCE_EXHAUSTED | UNAVAILABLE, ..)) => Outcome::Refused,
            Ok((status, text, _)) => Outcome::Failed(status, text),
            Err(error) => Outcome::Broken(error.to_string()),
        }
    }

    async fn call(&self, message: Bytes) -> Result<(u32, String, u64), h2::Error> {
        let sender = self.sender.borrow().clone();
        let mut sender = sender.ready().await?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
        headers.insert("te", http::HeaderValue::from_static("trailers"));
        let (answer, mut stream) = sender.send_request(request, false)?;
        stream.send_data(message, true)?;
        let (head, mut body) = answer.await?.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            let _ = body.flow_control().release_capacity(data.len());
            bytes.extend_from_slice(&data);
        }
        let trailers = body.trailers().await?.unwrap_or(head.headers);
        let (status, text) = status(&trailers);
        Ok((status, text, rejected(&bytes)))
    }
}

async fn connect(target: SocketAddr, source: Option<SocketAddr>) -> Result<SendRequest<Bytes>, Box<dyn Error>> {
    let socket = TcpSocket::new_v4()?;
    if let Some(source) = source {
        socket.bind(source)?;
    }
    let stream: TcpStream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = client::handshake(stream).await?;
    spawn_local(async move {
        let _ = connection.await; // whoever calls is told too
    });
    Ok(sender)
}

/// 127.1.0.1 and on: every connection is a host.
fn host(number: usize) -> SocketAddr {
    let [_, high, middle, low] = (number as u32 + 1).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, high + 1, middle, low)), 0)
}

fn status(trailers: &HeaderMap) -> (u32, String) {
    let text = |name| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    (text("grpc-status").parse().unwrap_or(2), text("grpc-message").to_owned())
}

/// `partial_success.rejected_spans` of a framed ExportTraceServiceResponse: the varint field 1 of field 1.
fn rejected(answer: &[u8]) -> u64 {
    let Some([0x0a, _, 0x08, varint @ ..]) = answer.get(5..) else { return 0 };
    let mut count = 0;
    for (place, byte) in varint.iter().take(9).enumerate() {
        count |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    count
}
