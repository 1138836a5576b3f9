//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub struct Options {
    pub target: SocketAddr,
    pub file: PathBuf,
    pub connections: usize,
    /// Calls under way, over all connections; each connection has at least one.
    pub in_flight: usize,
    /// 0: as fast as answers allow.
    pub spans_per_s: f64,
    pub seconds: Option<Duration>,
    /// Each connection comes from a loopback address of its own, as a host would.
    pub hosts: bool,
}

impl Options {
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut target, mut file) = (None, None);
        let (mut connections, mut in_flight, mut spans_per_s, mut seconds, mut hosts) = (4, 32, 0.0, None, false);
        let mut arguments = arguments;
        while let Some(name) = arguments.next() {
            if name == "--hosts" {
                hosts = true;
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{name}: a value is missing"))?;
            let wrong = |_| format!("{name} {value}: not a number");
            match name.as_str() {
                "--target" => target = Some(value.parse().map_err(|_| format!("--target {value}: not IP:PORT"))?),
                "--file" => file = Some(PathBuf::from(&value)),
                "--connections" => connections = value.parse::<usize>().map_err(|error| wrong(error.to_string()))?.max(1),
                "--in-flight" => in_flight = value.parse().map_err(|error: std::num::ParseIntError| wrong(error.to_string()))?,
                "--rate" => spans_per_s = value.parse().map_err(|error: std::num::ParseFloatError| wrong(error.to_string()))?,
                "--seconds" => {
                    let limit: f64 = value.parse().map_err(|error: std::num::ParseFloatError| wrong(error.to_string()))?;
                    seconds = (limit > 0.0).then(|| Duration::from_secs_f64(limit));
                }
                _ => return Err(format!("{name}: not an option (--target --file --connections --in-flight --rate --seconds --hosts)")),
            }
        }
        Ok(Self {
            target: target.ok_or("--target IP:PORT is missing")?,
            file: file.ok_or("--file FILE is missing")?,
            connections,
            in_flight,
            spans_per_s,
            seconds,
            hosts,
        })
    }
}
