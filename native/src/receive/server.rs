//! Listening, and the worker threads that have the connections.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder as Thread, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{mpsc, watch};

use super::answer;
use super::connection;
use super::export::Place;
use super::guard::{guard, guarded, install};
use super::hub::{Answer, Hub};
use super::notes::Kind;
use super::queue::THREADS;
use super::until::until;

const BACKLOG: u32 = 1024; // a mesh comes back all at once
const AFTER_ERROR: Duration = Duration::from_millis(50); // out of file descriptors, most likely

/// What runs; see [`start`].
pub struct Server {
    /// The port that it got.
    pub port: u16,
    stopping: watch::Sender<bool>,
    grace: Arc<watch::Sender<Duration>>,
    threads: Vec<JoinHandle<()>>,
}

/// What a worker has: how many connections, and where new ones go.
struct Desk {
    connections: Arc<AtomicUsize>,
    streams: UnboundedSender<StdStream>,
}

/// Listens on every address (port 0: a free one, the same for all) with so many worker threads; beyond `max_connections` new ones are closed.
pub fn start(hub: &Arc<Hub>, addresses: &[SocketAddr], workers: usize, reuse_port: bool, max_connections: usize) -> io::Result<Server> {
    install();
    let (stopping, is_stopping) = watch::channel(false);
    let grace = Arc::new(watch::channel(Duration::ZERO).0);
    let (ended, mut all_ended) = mpsc::channel::<()>(1);
    let mut desks = Vec::new();
    let mut answers = Vec::new();
    let mut parts = Vec::new();
    for worker in 0..workers {
        let runtime = Builder::new_current_thread().enable_io().enable_time().max_blocking_threads(THREADS).build()?;
        let (streams, new_streams) = unbounded_channel();
        let (answer, new_answers) = unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        desks.push(Desk { connections: Arc::clone(&connections), streams });
        answers.push(answer);
        let place = Place { hub: Arc::clone(hub), worker, large: Arc::default(), peer: Arc::default(), stopping: is_stopping.clone() };
        parts.push((runtime, Worker { place, connections, grace: grace.subscribe() }, new_streams, new_answers));
    }
    let (listeners, port) = parts[0].0.block_on(async { listen(addresses, reuse_port) })?;
    if hub.answers.set(answers).is_err() {
        return Err(io::Error::other("a receiver starts once"));
    }
    let desks = Arc::new(desks);
    for listener in listeners {
        parts[0].0.spawn(take(Arc::clone(hub), listener, Arc::clone(&desks), max_connections, is_stopping.clone()));
    }
    let mut threads = Vec::new();
    for (runtime, worker, new_streams, new_answers) in parts {
        let (ended, name) = (ended.clone(), format!("meshflow-grpc-{}", worker.place.worker));
        threads.push(Thread::new().name(name).spawn(move || {
            worker.run(runtime, new_streams, new_answers);
            drop(ended);
        })?);
    }
    drop(ended);
    let hub = Arc::clone(hub);
    threads.push(Thread::new().name("meshflow-grpc-end".to_owned()).spawn(move || {
        let _none = all_ended.blocking_recv();
        hub.has_stopped.store(true, Ordering::Release);
        hub.ring();
    })?);
    Ok(Server { port, stopping, grace, threads })
}

fn listen(addresses: &[SocketAddr], reuse_port: bool) -> io::Result<(Vec<TcpListener>, u16)> {
    let mut port = 0;
    let mut listeners = Vec::new();
    for address in addresses {
        let mut address = *address;
        if address.port() == 0 {
            address.set_port(port);
        }
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(reuse_port)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok((listeners, port))
}

/// Hands each new connection to the worker that has the fewest, until the receiver stops.
async fn take(hub: Arc<Hub>, listener: TcpListener, desks: Arc<Vec<Desk>>, max_connections: usize, mut stopping: watch::Receiver<bool>) {
    let listening = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    guarded(&hub.notes, || hand_over(&hub, stream, &desks, max_connections));
                }
                Err(error) => {
                    hub.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
                    hub.notes.add(Kind::Accept, || error.to_string());
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    };
    let _stopped: Option<()> = until(stopping.wait_for(|is_stopping| *is_stopping), listening).await;
}

fn hand_over(hub: &Hub, stream: TcpStream, desks: &[Desk], max_connections: usize) {
    if hub.counters.connections.load(Ordering::Relaxed) >= max_connections {
        hub.counters.connections_refused.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let desk = desks.iter().min_by_key(|desk| desk.connections.load(Ordering::Relaxed));
    if let (Some(desk), Ok(())) = (desk, stream.set_nodelay(true))
        && let Ok(stream) = stream.into_std()
    {
        hub.counters.connections.fetch_add(1, Ordering::Relaxed);
        desk.connections.fetch_add(1, Ordering::Relaxed);
        let _stopped = desk.streams.send(stream);
    }
}

struct Worker {
    place: Place,
    connections: Arc<AtomicUsize>,
    grace: watch::Receiver<Duration>,
}

/// Counts a connection for as long as it lives, whatever ends it.
struct Counted {
    hub: Arc<Hub>,
    connections: Arc<AtomicUsize>,
    _open: mpsc::Sender<()>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.hub.counters.connections.fetch_sub(1, Ordering::Relaxed);
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker {
    fn run(self, runtime: Runtime, new_streams: UnboundedReceiver<StdStream>, new_answers: UnboundedReceiver<Vec<Answer>>) {
        runtime.spawn(settle(Arc::clone(&self.place.hub), new_answers));
        runtime.block_on(self.serve(new_streams));
        runtime.shutdown_background();
    }

    /// Until the receiver stops and every connection has ended, or its time is over.
    async fn serve(self, mut new_streams: UnboundedReceiver<StdStream>) {
        let (open, mut all_closed) = mpsc::channel::<()>(1);
        let mut stopping = self.place.stopping.clone();
        while let Some(Some(stream)) = until(stopping.wait_for(|is_stopping| *is_stopping), new_streams.recv()).await {
            self.spawn(stream, open.clone());
        }
        while let Ok(stream) = new_streams.try_recv() {
            self.spawn(stream, open.clone()); // accepted already, so it gets a GOAWAY
        }
        drop(open);
        let grace = *self.grace.borrow();
        let _over = tokio::time::timeout(grace, all_closed.recv()).await;
    }

    fn spawn(&self, stream: StdStream, open: mpsc::Sender<()>) {
        let counted = Counted { hub: Arc::clone(&self.place.hub), connections: Arc::clone(&self.connections), _open: open };
        let place = Place { peer: Arc::default(), ..self.place.clone() };
        tokio::spawn(async move {
            let _counted = counted;
            let hub = Arc::clone(&place.hub);
            if let Ok(stream) = TcpStream::from_std(stream) {
                guard(&hub.notes, connection::serve(place, stream)).await;
            }
        });
    }
}

/// Answers calls; a panic in one is that one's alone.
async fn settle(hub: Arc<Hub>, mut new_answers: UnboundedReceiver<Vec<Answer>>) {
    while let Some(answers) = new_answers.recv().await {
        for one in answers {
            guarded(&hub.notes, || answer::settle(&hub, one));
        }
    }
}

impl Server {
    /// Takes no new connections and ends the others: at once where nothing is under way, in `grace` at the latest.
    pub fn stop(&self, grace: Duration) {
        self.grace.send_replace(grace);
        self.stopping.send_replace(true);
    }

    /// Waits for the threads; they end after `stop`.
    pub fn join(self) {
        for thread in self.threads {
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Request};

    use super::super::hub::{Call, Settings};
    use super::super::pending::{Limits, Pending};
    use super::*;

    fn hub() -> Arc<Hub> {
        let settings = Settings {
            partitions: 1,
            retry_ns: 0,
            limit_bytes: 1 << 20,
            max_message: 1 << 20,
            max_receiving: 1 << 20,
            max_streams: 10,
            max_age: Duration::MAX,
            age_grace: Duration::MAX,
            keepalive_time: Duration::MAX,
            keepalive_timeout: Duration::MAX,
            body_timeout: Duration::MAX,
        };
        let limits = Limits { window_ns: 0, record_bytes: 1, limit_bytes: 1 << 20, retry_ns: 0 };
        Arc::new(Hub::new(settings, Pending::new(limits, 1), 0))
    }

    /// Two calls over one connection: how each ends, once `settle` was given both at once and answering the first panics.
    #[test]
    fn a_panic_in_one_answer_leaves_the_others() {
        install();
        let hub = hub();
        let runtime = Builder::new_current_thread().enable_io().build().unwrap();
        let ends = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let accepted = listener.accept().await.unwrap().0;
            let client = tokio::spawn(async move {
                let (mut client, connection) = h2::client::Builder::new().handshake::<_, Bytes>(stream).await.unwrap();
                tokio::spawn(connection);
                let calls: Vec<_> = (0..2).map(|_| client.send_request(Request::new(()), true).unwrap().0).collect();
                let mut ends = Vec::new();
                for call in calls {
                    let body = call.await.map(|response| response.into_body());
                    ends.push(match body {
                        Ok(mut body) => {
                            while body.data().await.is_some() {}
                            body.trailers().await.unwrap()
                        }
                        Err(_) => None,
                    });
                }
                ends
            });
            let mut connection = h2::server::handshake(accepted).await.unwrap();
            let mut calls = Vec::new();
            for topic in [usize::MAX, 0] {
                let (_, respond) = connection.accept().await.unwrap().unwrap();
                calls.push((Box::new(Call { topic, worker: 0, respond, partial: None }), None)); // usize::MAX is no topic
            }
            let (answer, answers) = unbounded_channel();
            answer.send(calls).unwrap();
            drop(answer);
            settle(Arc::clone(&hub), answers).await;
            tokio::spawn(async move { while connection.accept().await.is_some() {} });
            client.await.unwrap()
        });
        let status = |trailers: &HeaderMap| trailers["grpc-status"].clone();
        assert_eq!(ends.iter().map(|end| end.as_ref().map(status)).collect::<Vec<_>>(), [None, Some("0".parse().unwrap())]);
        let notes = hub.notes.take(true, std::time::Instant::now());
        assert!(notes[0].2.contains("counters.rs") && notes[0].2.contains("out of bounds"), "{notes:?}");
    }
}
