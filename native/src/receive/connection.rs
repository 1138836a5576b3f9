//! One connection: HTTP/2 with limits, an age, pings for a silent sender, and a way to end.

use std::collections::hash_map::RandomState;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher};
use std::pin::pin;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::Request;
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout};

use super::call;
use super::export::Place;
use super::foreign;
use super::hub::Settings;
use super::notes::Kind;
use super::socket::{Activity, Socket, Stream};
use super::until::until;

const MANY: usize = 64; // connections from which on each gets the smallest window there is
const LARGE_WINDOW: u32 = 1 << 20;
const SMALL_WINDOW: u32 = 65_535;
const MAX_HEADERS: u32 = 16 << 10;
const MAX_RESETS: usize = 256; // by either side, before the connection is ended
const MAX_SEND_BUFFER: usize = 64 << 10;
const GOODBYE: Duration = Duration::from_secs(2); // for requests sent before a peer hears that the receiver stops
const LAST_WORDS: Duration = Duration::from_millis(500); // to begin, while the receiver stops: then GOAWAY sends it elsewhere

#[allow(clippy::large_enum_variant)] // made and used at once
enum Event {
    Request(Request<RecvStream>, SendResponse<Bytes>),
    Ended,
    Pong,
    Time,
    Stopping,
}

/// Serves a connection until it ends.
pub async fn serve(place: Place, stream: TcpStream) {
    let settings = place.hub.settings.clone();
    let begun = timeout(settings.keepalive_timeout, until(stopped(&place), begin(&place, stream))).await;
    if let Ok(Some(Some((connection, activity)))) = begun {
        run(&place, &settings, connection, activity).await;
    }
}

/// Ends soon after the receiver begins to stop: one that has not begun by then must not hold it up.
async fn stopped(place: &Place) {
    let mut stopping = place.stopping.clone();
    drop(stopping.wait_for(|is_stopping| *is_stopping).await);
    sleep(LAST_WORDS).await;
}

async fn begin(place: &Place, stream: TcpStream) -> Option<(Connection<Socket, Bytes>, Activity)> {
    let tls = place.hub.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
    let stream = match tls {
        None => {
            if foreign::turned_away(&place.hub, &stream).await {
                return None;
            }
            Stream::Plain(stream)
        }
        Some(acceptor) => {
            let peer = stream.peer_addr();
            let note = |error| {
                place.hub.notes.add(Kind::Handshake, || format!("{}: {error}", peer.map_or("?".to_owned(), |peer| peer.to_string())))
            };
            Stream::Tls(Box::new(acceptor.accept(stream).await.map_err(note).ok()?))
        }
    };
    let activity = Activity::new();
    let is_one_of_many = place.hub.counters.connections.load(Relaxed) > MANY;
    let window = if is_one_of_many { SMALL_WINDOW } else { LARGE_WINDOW };
    let connection = Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(window)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(place.hub.settings.max_streams)
        .max_concurrent_reset_streams(MAX_RESETS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(Some(MAX_RESETS))
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .handshake(Socket { stream, activity: activity.clone() })
        .await
        .ok()?;
    Some((connection, activity))
}

/// When a connection has to be looked at, and what for.
struct Clock {
    move_on: Option<Instant>, // None once the sender was asked to
    cut_off: Option<Instant>,
    pinged: Option<Instant>,
    goodbye: Option<Instant>, // while the receiver stops: when to end it, unless requests are under way
}

impl Clock {
    fn next(&self, settings: &Settings, last_read: Instant) -> Instant {
        let ping = self.pinged.map_or(last_read + settings.keepalive_time, |at| at + settings.keepalive_timeout);
        [self.move_on, self.cut_off, self.goodbye].into_iter().flatten().fold(ping, Instant::min)
    }
}

async fn run(place: &Place, settings: &Settings, mut connection: Connection<Socket, Bytes>, activity: Activity) {
    let Some(mut pings) = connection.ping_pong() else { return };
    let mut clock = Clock { move_on: Some(Instant::now() + jittered(settings.max_age)), cut_off: None, pinged: None, goodbye: None };
    let mut stopping = place.stopping.clone();
    let mut stop = pin!(stopping.wait_for(|is_stopping| *is_stopping));
    let mut is_stopping = false;
    let mut timer = pin!(sleep_until(clock.next(settings, activity.last()).into()));
    loop {
        let event = poll_fn(|context| {
            match connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => return Poll::Ready(Event::Request(request, respond)),
                Poll::Ready(_) => return Poll::Ready(Event::Ended),
                Poll::Pending => {}
            }
            if clock.pinged.is_some() && pings.poll_pong(context).is_ready() {
                return Poll::Ready(Event::Pong);
            }
            if !is_stopping && stop.as_mut().poll(context).is_ready() {
                return Poll::Ready(Event::Stopping);
            }
            timer.as_mut().poll(context).map(|()| Event::Time)
        })
        .await;
        match event {
            Event::Request(request, respond) => {
                call::accept(place, request, respond);
                continue;
            }
            Event::Ended => return,
            Event::Pong => clock.pinged = None,
            Event::Stopping => {
                is_stopping = true;
                clock.move_on = None;
                clock.goodbye = Some(Instant::now() + GOODBYE);
                connection.graceful_shutdown(); // whoever stops also says how long it may take
            }
            Event::Time => {
                if !on_time(settings, &mut clock, &mut connection, &mut pings, activity.last()) {
                    return;
                }
            }
        }
        timer.as_mut().reset(clock.next(settings, activity.last()).into());
    }
}

/// Does what is due; false ends the connection.
fn on_time(
    settings: &Settings,
    clock: &mut Clock,
    connection: &mut Connection<Socket, Bytes>,
    pings: &mut PingPong,
    last_read: Instant,
) -> bool {
    let now = Instant::now();
    if clock.cut_off.is_some_and(|at| at <= now) {
        return false;
    }
    if clock.goodbye.is_some_and(|at| at <= now) {
        if !connection.has_streams() {
            return false;
        }
        clock.goodbye = Some(now + GOODBYE);
    }
    if clock.move_on.is_some_and(|at| at <= now) {
        clock.move_on = None;
        clock.cut_off = Some(now + settings.age_grace);
        connection.graceful_shutdown();
    }
    match clock.pinged {
        // one that sends is there, and its pong may be behind what it sends
        Some(at) if at + settings.keepalive_timeout <= now && last_read > at => clock.pinged = Some(now),
        Some(at) if at + settings.keepalive_timeout <= now => return false,
        None if last_read + settings.keepalive_time <= now => {
            clock.pinged = Some(now);
            return pings.send_ping(Ping::opaque()).is_ok();
        }
        _ => {}
    }
    true
}

/// Within 10 %, so that connections made together do not move on together.
fn jittered(time: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 2001;
    time.mul_f64(0.9 + random as f64 / 10_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_within_a_tenth() {
        let times: Vec<Duration> = (0..100).map(|_| jittered(Duration::from_secs(100))).collect();
        assert!(times.iter().all(|time| (90.0..=110.1).contains(&time.as_secs_f64())));
        assert!(times.iter().any(|time| *time != times[0]));
    }
}
