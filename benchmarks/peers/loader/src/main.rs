//! Sends requests that a file holds over OTLP gRPC, on one thread, and says what came of them as a line of JSON.
//!
//! The file: for each request u32 little-endian count of spans, then the gRPC message (0, u32 big-endian length, body). It is read before
//! anything is measured; sending copies nothing. Says `ready` when all connections are there, and begins at a line on standard input.

mod connection;
mod load;
mod options;
mod report;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io::{Write, stdin};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use connection::{Connection, Outcome};
use load::Load;
use options::Options;
use report::Report;

const RETRY: Duration = Duration::from_millis(50);
/// How long a request may be refused, unanswered, or its connections break, before nothing is measured.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let load = Load::read(&options.file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = LocalSet::new().block_on(&runtime, run(options, load))?;
    println!("{}", report.to_json());
    stdin().read_line(&mut String::new())?; // whoever measures looks at this process once more
    Ok(())
}

async fn run(options: Options, load: Load) -> Result<Report, Box<dyn Error>> {
    let mut connections = Vec::new();
    for number in 0..options.connections {
        connections.push(Rc::new(Connection::open(&options, number).await?));
    }
    println!("ready");
    std::io::stdout().flush()?;
    stdin().read_line(&mut String::new())?;

    let sending = Rc::new(Sending {
        load,
        begin: Instant::now(),
        end: options.seconds.map(|seconds| Instant::now() + seconds),
        spans_per_s: options.spans_per_s,
        next: Cell::new((0, 0)),
        report: RefCell::new(Report::new(options.connections)),
    });
    let mut workers = JoinSet::new();
    for number in 0..options.in_flight.max(options.connections) {
        let connection = number % options.connections;
        workers.spawn_local(work(sending.clone(), connections[connection].clone(), connection));
    }
    while let Some(done) = workers.join_next().await {
        done??;
    }
    let mut report = sending.report.replace(Report::new(0));
    report.finish(sending.begin.elapsed());
    Ok(report)
}

struct Sending {
    load: Load,
    begin: Instant,
    end: Option<Instant>,
    spans_per_s: f64,
    /// The next request's number, and the spans of those before it.
    next: Cell<(usize, u64)>,
    report: RefCell<Report>,
}

impl Sending {
    /// The next request and when it is due.
    fn take(&self) -> Option<(usize, Instant)> {
        let (number, spans) = self.next.get();
        let request = self.load.requests.get(number)?;
        let due = if self.spans_per_s > 0.0 { self.begin + Duration::from_secs_f64(spans as f64 / self.spans_per_s) } else { self.begin };
        if self.end.is_some_and(|end| due.max(Instant::now()) >= end) {
            return None;
        }
        self.next.set((number + 1, spans + u64::from(request.spans)));
        Some((number, due))
    }
}

/// One call after the other, each sent until it is taken, or refused for good.
async fn work(sending: Rc<Sending>, connection: Rc<Connection>, number: usize) -> Result<(), String> {
    while let Some((request, due)) = sending.take() {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        let request = &sending.load.requests[request];
        let began = Instant::now();
        loop {
            let Ok(outcome) = timeout(PATIENCE, connection.export(request.message.clone())).await else {
                return Err("the receiver does not answer".to_owned());
            };
            match outcome {
                Outcome::Taken { rejected } => {
                    sending.report.borrow_mut().taken(number, request, rejected, began.elapsed());
                    break;
                }
                Outcome::Refused if began.elapsed() > PATIENCE => return Err("the receiver refuses for too long".to_owned()),
                Outcome::Refused => {
                    sending.report.borrow_mut().refused += 1;
                    sleep(RETRY).await;
                }
                Outcome::Failed(status, text) => return Err(format!("the receiver answered with status {status}: {text}")),
                Outcome::Broken(error) if began.elapsed() > PATIENCE => return Err(format!("connections break: {error}")),
                Outcome::Broken(_) => {
                    sending.report.borrow_mut().broken += 1;
                    sleep(RETRY).await;
                    connection.reopen().await;
                }
            }
        }
    }
    Ok(())
}
