//! Forges webhook deliveries for a daemon as fast as it takes them: `cargo run --release --example forge-nudges`.
//!
//! Each looks right until its signature is computed: the headers are GitHub's, the body is a recorded `workflow_job`
//! payload. Beside them a true delivery goes out now and then, a `ping` of the same size, to see how long the
//! daemon takes to answer it. `tests/measure_nudges` uses this and reads the line that it prints.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program for people, which measures time"
)]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use hmac::{Hmac, Mac};
use sha2::Sha256;

const BODY: &[u8] = include_bytes!("../data/webhooks/workflow_job.queued.hosted.json");
/// Between two true deliveries.
const TRUE_EVERY: Duration = Duration::from_millis(100);
/// An answer that takes longer counts as none.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Sends forged deliveries, and some true ones, and prints how they were answered.
#[derive(Debug, Parser)]
#[command(name = "forge-nudges")]
struct Arguments {
    /// Where the daemon listens.
    address: SocketAddr,
    /// For how many seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How many connections send forged deliveries; none for true ones alone.
    #[arg(long, default_value_t = 8)]
    connections: u32,
    /// How many deliveries a connection has under way.
    #[arg(long, default_value_t = 16)]
    pipelined: u32,
    /// What signs true deliveries.
    #[arg(long, env = "WEBHOOK_SECRET", hide_env_values = true)]
    secret: String,
}

/// How many answers there were of each status.
type Statuses = BTreeMap<u16, u64>;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("forge-nudges: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<String> {
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(arguments.seconds);
    thread::scope(|scope| {
        let forgers: Vec<_> =
            (0..arguments.connections).map(|number| scope.spawn(move || forge(arguments, number, end))).collect();
        let mut waits = tell_truth(arguments, end)?;
        let mut forged = Statuses::new();
        for forger in forgers {
            for (status, count) in forger.join().expect("no forger panics")? {
                *forged.entry(status).or_default() += count;
            }
        }
        let all: u64 = forged.values().sum();
        #[expect(clippy::cast_precision_loss, reason = "some millions")]
        let per_second = all as f64 / begin.elapsed().as_secs_f64();
        let unauthorized = forged.get(&401).copied().unwrap_or(0);
        waits.sort_by(f64::total_cmp);
        Ok(format!(
            "forged={all} per_second={per_second:.0} unauthorized={unauthorized} true={} true_p50_ms={:.2} true_p99_ms={:.2}",
            waits.len(),
            quantile(&waits, 50),
            quantile(&waits, 99),
        ))
    })
}

/// Sends forged deliveries over one connection, and counts the answers.
fn forge(arguments: &Arguments, number: u32, end: Instant) -> io::Result<Statuses> {
    let several: Vec<u8> = (0..arguments.pipelined)
        .flat_map(|index| {
            let id = format!("{number:08x}-cc78-11e3-81ab-{index:012x}");
            request("workflow_job", &id, &signature(&id))
        })
        .collect();
    let mut connection = Connection::open(arguments.address)?;
    let mut statuses = Statuses::new();
    while Instant::now() < end {
        connection.stream.write_all(&several)?;
        for _ in 0..arguments.pipelined {
            *statuses.entry(connection.status()?).or_default() += 1;
        }
    }
    Ok(statuses)
}

/// Sends true deliveries, and tells how long each answer took, in milliseconds.
fn tell_truth(arguments: &Arguments, end: Instant) -> io::Result<Vec<f64>> {
    let mut connection = Connection::open(arguments.address)?;
    let signature = signature(&arguments.secret);
    let mut waits = Vec::new();
    while Instant::now() < end {
        // The daemon remembers deliveries: one of an earlier process would come again.
        let id = format!("{:08x}-{:08x}", std::process::id(), waits.len());
        let ping = request("ping", &id, &signature);
        let sent = Instant::now();
        connection.stream.write_all(&ping)?;
        let status = connection.status()?;
        if status != 200 {
            return Err(io::Error::other(format!("a true delivery was answered with {status}")));
        }
        waits.push(sent.elapsed().as_secs_f64() * 1e3);
        thread::sleep(TRUE_EVERY);
    }
    Ok(waits)
}

fn signature(secret: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length will do");
    hex::encode(mac.chain_update(BODY).finalize().into_bytes())
}

fn request(event: &str, delivery: &str, signature: &str) -> Vec<u8> {
    let head = format!(
        "POST /webhooks/github HTTP/1.1\r\nHost: sandrunner\r\nUser-Agent: GitHub-Hookshot/0123456\r\nAccept: */*\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nX-GitHub-Event: {event}\r\nX-GitHub-Delivery: {delivery}\r\n\
         X-GitHub-Hook-ID: 1\r\nX-Hub-Signature-256: sha256={signature}\r\n\r\n",
        BODY.len()
    );
    [head.as_bytes(), BODY].concat()
}

/// The value below which so many of a hundred sorted ones are.
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// A connection that answers are read from, one after the other.
struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// The status of the next answer, whose body is passed over.
    fn status(&mut self) -> io::Result<u16> {
        loop {
            if let Some((status, length)) = answer(&self.read) {
                self.read.drain(..length);
                return Ok(status);
            }
            let mut some = [0; 16 * 1024];
            match self.stream.read(&mut some)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.read.extend_from_slice(&some[..count]),
            }
        }
    }
}

/// The status of the answer that begins there, and its length with its body; none where it is not there in full.
fn answer(read: &[u8]) -> Option<(u16, usize)> {
    let head = read.windows(4).position(|part| part == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&read[..head]).ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    let lengths = text.lines().filter_map(|line| line.split_once(": "));
    let length = lengths
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .find_map(|(_, value)| value.parse().ok());
    let whole = head + 4 + length.unwrap_or(0_usize);
    (read.len() >= whole).then_some((status, whole))
}
