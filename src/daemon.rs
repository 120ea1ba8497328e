//! Wires the parts of the daemon together from its settings: clients, controller, HTTP server, schedule.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::act::{Builder, ImageMaker, Writers};
use crate::admin::{self, Admin};
use crate::class::RunnerClass;
use crate::clock::Clock;
use crate::config::{Mode, Settings, Unused};
use crate::controller::{Asker, Controller, Dry, Handover, Parts, Question};
use crate::evidence::kept;
use crate::github::{self, GithubError, GithubReaders, GithubSettings, GithubWriters};
use crate::http::Server;
use crate::http::endpoint::Endpoint;
use crate::http::webhook::Hint;
use crate::ids::AccountName;
use crate::modal::{self, ModalError, ModalReader, ModalWriter};
use crate::observe::Readers;
use crate::plan::Policy;
use crate::schedule;
use crate::state_dir::{self, BuildLogs};

/// Questions that may wait for the controller.
const QUESTIONS: usize = 16;
/// Nudges that may wait for the controller, which takes all of them in one pass.
const NUDGES: usize = 1024;

/// How long answers under way may take when the daemon stops.
const SERVERS_LIMIT: Duration = Duration::from_secs(1);

/// What keeps the daemon from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The client of GitHub cannot be made.
    #[error("cannot set up the client of GitHub")]
    Github(#[source] GithubError),
    /// The client of Modal cannot be made.
    #[error("cannot set up the client of Modal")]
    Modal(#[source] ModalError),
    /// There cannot be an admin socket.
    #[error("cannot listen at {}: set `admin_socket`", .path.display())]
    Admin {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The HTTP server cannot listen.
    #[error("cannot listen on {address}: is another daemon running? Set `http.listen`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The clients of both services.
#[derive(Debug)]
pub struct Clients {
    /// Per account, in the order of the settings.
    pub github: Vec<(GithubReaders, GithubWriters)>,
    /// Modal.
    pub modal: (ModalReader, ModalWriter),
}

impl Clients {
    /// Clients over the network; nothing is contacted before the first call.
    ///
    /// # Errors
    /// [`StartError`] where one cannot be made.
    pub fn connect(settings: &Settings, clock: &Clock) -> Result<Self, StartError> {
        Self::connect_after(&Connected::default(), settings, clock)
    }

    /// The same after a daemon in this process: the clients of GitHub's accounts that are configured as they were go on,
    /// and one with other limits is told what is known of the credential. What GitHub set does not end with a
    /// configuration.
    ///
    /// # Errors
    /// [`StartError`] where one cannot be made.
    pub fn connect_after(former: &Connected, settings: &Settings, clock: &Clock) -> Result<Self, StartError> {
        let connect = |account: &GithubSettings| {
            let time = Time::of(account, settings);
            let former = former.find(account);
            if let Some(made) = former.filter(|made| made.time == time && made.settings.has_same_limits(account)) {
                return Ok(made.clients.clone());
            }
            let next = github::connect(account.clone(), time.clock(clock))?;
            if let Some(Made { clients: (readers, _), .. }) = former {
                next.0.adopt(readers);
            }
            Ok(next)
        };
        Ok(Self {
            github: settings.github.iter().map(connect).collect::<Result<_, _>>().map_err(StartError::Github)?,
            modal: modal::connect(settings.modal.clone(), clock.clone()).map_err(StartError::Modal)?,
        })
    }
}

/// The clients of GitHub's accounts, with what each was made of.
#[derive(Debug, Clone, Default)]
pub struct Connected(Vec<Made>);

#[derive(Debug, Clone)]
struct Made {
    settings: GithubSettings,
    time: Time,
    clients: (GithubReaders, GithubWriters),
}

impl Connected {
    fn new(settings: &Settings, clients: &Clients) -> Self {
        let made = settings.github.iter().zip(&clients.github).map(|(account, clients)| Made {
            settings: account.clone(),
            time: Time::of(account, settings),
            clients: clients.clone(),
        });
        Self(made.collect())
    }

    /// The clients of an account with the same credentials.
    fn find(&self, account: &GithubSettings) -> Option<&Made> {
        self.0.iter().find(|made| made.settings.is_same_credential(account))
    }
}

/// By whom the clock of an account is judged: Modal's times are by what GitHub's own hosts tell of ours, and an Enterprise
/// Server, whose clock its owner sets, tells only of itself where there is another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Time {
    /// It tells of all services.
    Led,
    /// It tells of itself.
    Own,
}

impl Time {
    fn of(account: &GithubSettings, settings: &Settings) -> Self {
        let is_own = |account: &&GithubSettings| !github::is_enterprise_server(&account.api_url);
        let leading = settings.github.iter().find(is_own).or(settings.github.first());
        if leading.is_none_or(|leading| leading.api_url == account.api_url) { Self::Led } else { Self::Own }
    }

    fn clock(self, clock: &Clock) -> Clock {
        match self {
            Self::Led => clock.clone(),
            Self::Own => clock.for_another_service(),
        }
    }
}

/// Sockets that listen. Whoever prepares the next daemon of this process hands them on, so that nobody is refused who
/// connects meanwhile.
#[derive(Debug, Default)]
pub struct Listeners {
    /// With the address that was asked for, whose port may be any.
    http: Option<(SocketAddr, TcpListener)>,
    admin: Option<(PathBuf, UnixListener)>,
}

impl Listeners {
    /// The one that listens at that address, or a new one.
    fn http(&self, address: SocketAddr) -> io::Result<TcpListener> {
        match &self.http {
            Some((asked, listener)) if *asked == address => listener.try_clone(),
            Some(_) | None => TcpListener::bind(address),
        }
    }

    /// The admin socket at that path, or a new one.
    fn admin(&self, path: &Path) -> io::Result<UnixListener> {
        match &self.admin {
            Some((known, listener)) if known == path => listener.try_clone(),
            Some(_) | None => admin::bind(path),
        }
    }

    /// Takes away the admin socket of a daemon that has ended, unless the next one is reached there.
    pub fn remove(self, next: Option<&Prepared>) {
        let kept = next.and_then(|next| next.settings.admin_socket.as_ref());
        if let Some((path, _)) = self.admin
            && kept != Some(&path)
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::debug!(%error, path = %path.display(), "the admin socket could not be removed");
        }
    }
}

/// A daemon that can start: all is done of its configuration that can fail. Nothing was contacted.
#[derive(Debug)]
pub struct Prepared {
    settings: Settings,
    clients: Clients,
    clock: Clock,
    server: Option<Server>,
    admin: Option<UnixListener>,
    heard: Heard,
    asker: Asker,
    listeners: Listeners,
    connected: Connected,
}

impl Prepared {
    /// Binds the HTTP server and the admin socket, where metrics are to be served, unless the daemon before it listens
    /// there.
    ///
    /// # Errors
    /// [`StartError`] where one cannot listen.
    pub fn new(
        settings: Settings,
        clients: Clients,
        clock: Clock,
        metrics: Option<PrometheusHandle>,
        former: &Listeners,
    ) -> Result<Self, StartError> {
        let (asker, questions) = Asker::new(QUESTIONS);
        let (nudge, nudges) = mpsc::channel(NUDGES);
        let mut listeners = Listeners::default();
        let (mut server, mut admin) = (None, None);
        if let Some(metrics) = metrics {
            let address = settings.listen;
            let endpoint = settings.webhook.clone().map(|secrets| Endpoint::new(secrets, nudge));
            let refused = |source| StartError::Listen { address, source };
            let listener = former.http(address).map_err(refused)?;
            let own = listener.try_clone().map_err(refused)?;
            server = Some(Server::new(own, metrics, asker.clone(), endpoint).map_err(refused)?);
            listeners.http = Some((address, listener));
            if let Some(path) = settings.admin_socket.clone() {
                let refused = |source| StartError::Admin { path: path.clone(), source };
                let listener = former.admin(&path).map_err(refused)?;
                admin = Some(listener.try_clone().map_err(refused)?);
                listeners.admin = Some((path, listener));
            }
        }
        let heard = Heard { questions, nudges };
        let connected = Connected::new(&settings, &clients);
        Ok(Self { settings, clients, clock, server, admin, heard, asker, listeners, connected })
    }

    /// Whether it will change anything.
    pub fn mode(&self) -> Mode {
        self.settings.mode
    }

    /// Reads what earlier processes kept, and takes what a daemon before it in this one left.
    pub async fn open(self, mut former: Handover) -> Daemon {
        let Self { settings, clients, clock, server, admin, heard, asker, listeners, connected } = self;
        let wake = Arc::new(Notify::new());
        let modal = clients.modal.0.clone();
        let mut controller = controller(&settings, clients, clock.clone(), Arc::clone(&wake), heard);
        let fingerprint = settings.runner_fingerprint();
        let (mut pauses, mut keeper_of_pauses) = (former.pauses.take(), None);
        // A daemon that only observes may stand beside one that acts, whose file that is.
        if let Some(dir) = settings.state_dir.as_ref().filter(|_| settings.mode == Mode::Act) {
            let deployment = &settings.policy.deployment;
            let (evidence, keeper) = state_dir::open(dir, deployment, fingerprint, clock.now()).await;
            let pages = state_dir::open_pages(dir, deployment, controller.github_readers(), clock.now()).await;
            let logs = state_dir::open_logs(dir, deployment, modal, clock.clone());
            let book = state_dir::open_book(dir, deployment, clock.now()).await;
            controller = controller.with_kept(evidence, keeper).with_pages(pages).with_logs(logs).with_book(book);
            let (kept, keeper) = state_dir::open_pauses(dir, deployment).await;
            (pauses, keeper_of_pauses) = (pauses.or(Some(kept)), Some(keeper));
        } else if let Some(kept) = former.kept.take()
            && let Ok(evidence) = kept::decode(kept.as_bytes(), fingerprint, clock.now())
        {
            controller = controller.with_kept(evidence, None);
        }
        let admin =
            admin.map(|listener| Admin::new(listener, asker.clone(), keeper_of_pauses, settings.state_dir.clone()));
        let controller = controller.with_handover(former).with_pauses(pauses.unwrap_or_default());
        Daemon { controller, server, admin, wake, asker, listeners, connected }
    }
}

/// A daemon that is ready to run.
#[derive(Debug)]
pub struct Daemon {
    controller: Controller,
    server: Option<Server>,
    admin: Option<Admin>,
    wake: Arc<Notify>,
    asker: Asker,
    listeners: Listeners,
    connected: Connected,
}

impl Daemon {
    /// Puts the daemon together and, where metrics are to be served, binds its HTTP server.
    ///
    /// # Errors
    /// [`StartError`] where the server cannot listen.
    pub async fn new(
        settings: &Settings,
        clients: Clients,
        clock: Clock,
        metrics: Option<PrometheusHandle>,
    ) -> Result<Self, StartError> {
        let prepared = Prepared::new(settings.clone(), clients, clock, metrics, &Listeners::default())?;
        Ok(prepared.open(Handover::default()).await)
    }

    /// The address of the HTTP server.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.as_ref().and_then(|server| server.address().ok())
    }

    /// What asks its controller.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Takes the sockets that listen, for the daemon after this one; this one goes on with its own handles of them.
    pub fn take_listeners(&mut self) -> Listeners {
        std::mem::take(&mut self.listeners)
    }

    /// Its clients of GitHub, for the daemon after this one.
    pub fn connected(&self) -> Connected {
        self.connected.clone()
    }

    /// Runs until `shutdown` completes; returns what that says, and what is left to the daemon after this one.
    ///
    /// # Panics
    /// Never: the controller ends when `shutdown` has completed, and not before.
    pub async fn run<T>(self, shutdown: impl Future<Output = T>) -> (T, Handover) {
        let stop = CancellationToken::new();
        // Also where this is dropped: the server has a thread of its own.
        let _ends_server = stop.clone().drop_guard();
        let server = self.server.map(|server| server.start(stop.clone()));
        if let Some(Err(error)) = &server {
            tracing::error!(%error, "the HTTP server did not start");
        }
        let schedule = schedule::start(self.wake).await;
        if let Err(error) = &schedule {
            tracing::error!(%error, "the schedule did not start; passes follow the interval alone");
        }
        let (said, heard) = oneshot::channel();
        let handover = self.controller.run(async {
            // The receiver is below.
            drop(said.send(shutdown.await));
        });
        let handover = tokio::select! {
            handover = handover => handover,
            never = answer(self.admin) => match never {},
        };
        stop.cancel();
        if let Ok(mut schedule) = schedule
            && let Err(error) = schedule.shutdown().await
        {
            tracing::debug!(%error, "the schedule did not stop");
        }
        // A client that reads slowly does not hold up the end, nor does the thread keep the process.
        if let Some(Ok(ended)) = server
            && tokio::time::timeout(SERVERS_LIMIT, ended).await.is_err()
        {
            tracing::debug!("a connection was still open at the end");
        }
        (heard.await.expect("the controller ends where its shutdown has said so"), handover)
    }
}

/// Answers at the admin socket, where there is one, beside the controller.
async fn answer(admin: Option<Admin>) -> Infallible {
    if let Some(admin) = admin {
        match admin.serve().await {
            Ok(never) => match never {},
            Err(error) => tracing::error!(%error, "the admin socket does not answer"),
        }
    }
    std::future::pending().await
}

/// What a controller hears from outside; it may hear nothing.
#[derive(Debug)]
pub struct Heard {
    /// What it is asked.
    pub questions: mpsc::Receiver<Question>,
    /// What GitHub's webhooks told.
    pub nudges: mpsc::Receiver<Hint>,
}

impl Heard {
    /// Nothing but the questions.
    pub fn questions(questions: mpsc::Receiver<Question>) -> Self {
        Self { questions, nudges: mpsc::channel(1).1 }
    }
}

/// Accounts that GitHub counts as one: they ask the same host with the same token, or as the same App.
fn doubled(accounts: &[GithubSettings]) -> Vec<(&AccountName, &AccountName)> {
    let pairs = accounts
        .iter()
        .enumerate()
        .flat_map(|(index, one)| accounts[index + 1..].iter().map(move |other| (one, other)));
    let doubled = pairs.filter(|(one, other)| one.api_url == other.api_url && one.auth.is_of_same(&other.auth));
    doubled.map(|(one, other)| (&one.account, &other.account)).collect()
}

fn tell_doubled(accounts: &[GithubSettings]) {
    for (account, other) in doubled(accounts) {
        tracing::warn!(
            %account, %other,
            "these accounts have the same token or GitHub App: where GitHub counts their requests as one, each plans as if \
             it were alone; make one of them, or give each its part of points_per_minute and mutations_per_minute"
        );
    }
}

/// Tells what the configuration leaves open of what sandboxes cost.
fn tell_cost_doubts(policy: &Policy) {
    let Policy { prices, classes, limits, .. } = policy;
    for class in classes.iter().filter(|class| limits.spend_per_day.or(class.spend_per_day).is_some()) {
        for machine in prices.unpriced(class) {
            tracing::warn!(
                class = %class.name, %machine,
                "there is a spend_per_day, and no price for this GPU: unless Modal tells one, none of it is created; set it \
                 in cost.gpus, or the class's `price`"
            );
        }
    }
    let lacks = |class: &&RunnerClass| class.machines().iter().any(|machine| prices.lacks_surcharge(class, machine));
    let classes: Vec<&str> = classes.iter().filter(lacks).map(|class| class.name.as_str()).collect();
    if !classes.is_empty() {
        tracing::warn!(
            ?classes,
            "Modal takes more in a region that is pinned, and cost.region_factor is 1: what these classes cost is counted \
             without that"
        );
    }
}

/// The controller with its readers and, unless it only observes, its writers.
pub fn controller(settings: &Settings, clients: Clients, clock: Clock, wake: Arc<Notify>, heard: Heard) -> Controller {
    tell_cost_doubts(&settings.policy);
    tell_doubled(&settings.github);
    for Unused { name, replacement } in &settings.unused {
        tracing::warn!(name, replacement, "a variable of the earlier project is set and does nothing");
    }
    let names = settings.github.iter().map(|account| account.account.clone());
    let github = names.zip(clients.github);
    let (readers, writers): (BTreeMap<_, _>, BTreeMap<_, _>) =
        github.map(|(name, (readers, writers))| ((name.clone(), readers), (name, writers))).unzip();
    let (modal_reader, modal) = clients.modal;
    let writers = (settings.mode == Mode::Act).then(|| Writers {
        github: writers,
        images: image_maker_of(settings, modal.clone(), readers.clone(), clock.clone()),
        modal,
        policy: settings.policy.clone(),
        runner: settings.runner.clone(),
        clock: clock.clone(),
    });
    Controller::new(Parts {
        policy: settings.policy.clone(),
        fingerprint: settings.runner_fingerprint(),
        readers: Readers {
            github: readers,
            modal: modal_reader,
            app: Mutex::default(),
            runs_pages_max: settings.runs_pages_max,
            policy: settings.policy.clone(),
            clock: clock.clone(),
        },
        writers,
        modal_creates: settings.modal_creates,
        wake,
        questions: heard.questions,
        nudges: heard.nudges,
        clock,
    })
}

/// What builds images, and nothing that changes runners or sandboxes.
pub fn image_maker(settings: &Settings, clients: Clients, clock: Clock) -> ImageMaker {
    let names = settings.github.iter().map(|account| account.account.clone());
    let readers = names.zip(clients.github).map(|(name, (readers, _))| (name, readers)).collect();
    ImageMaker { builder: Builder::Command, ..image_maker_of(settings, clients.modal.1, readers, clock) }
}

fn image_maker_of(
    settings: &Settings,
    modal: ModalWriter,
    releases: BTreeMap<AccountName, GithubReaders>,
    clock: Clock,
) -> ImageMaker {
    ImageMaker {
        modal,
        releases,
        policy: settings.policy.clone(),
        runner: settings.runner.clone(),
        clock,
        build_logs: settings.state_dir.as_ref().map(|dir| BuildLogs::new(dir, &settings.policy.deployment)),
        builder: Builder::Daemon,
    }
}

/// Looks once and plans, with nothing that could change anything.
pub async fn look(settings: &Settings, clients: Clients, clock: Clock, limit: Duration) -> Dry {
    let observing = Settings { mode: Mode::Observe, ..settings.clone() };
    let (_asker, questions) = Asker::new(1);
    controller(&observing, clients, clock, Arc::default(), Heard::questions(questions)).look(limit).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment, GithubConfig, ModalConfig};

    #[tokio::test(start_paused = true)]
    async fn an_account_that_is_configured_as_before_goes_on_with_its_limits_and_asks_nothing_within_them() {
        let settings = |tokens: &[(&str, &str)], points_per_minute| {
            let account = |(name, token): &(&str, &str)| GithubConfig {
                name: (*name).to_owned(),
                token: Some((*token).to_owned().into()),
                allowed_repos: vec![format!("{name}/web")],
                points_per_minute,
                ..GithubConfig::default()
            };
            let token = || Some("ak-x".to_owned().into());
            let modal = ModalConfig { token_id: token(), token_secret: token(), ..ModalConfig::default() };
            let github = tokens.iter().map(account).collect();
            Settings::new(&Config { modal, github, ..Config::default() }, &Environment::new()).unwrap()
        };
        let clock = Clock::scaled(chrono::DateTime::UNIX_EPOCH, 1.0);
        let first = settings(&[("acme", "ghp_a"), ("beta", "ghp_b")], 900);
        let clients = Clients::connect(&first, &clock).unwrap();
        for (readers, _) in &clients.github {
            let budget = readers.all()[0].budget();
            budget.lock().unwrap().limited_secondary(Some(Duration::from_secs(60)), clock.now());
        }
        let connected = Connected::new(&first, &clients);
        let held = |settings: &Settings| -> Vec<bool> {
            let next = Clients::connect_after(&connected, settings, &clock).unwrap();
            let is_held = |(readers, _): &(GithubReaders, _)| readers.all()[0].state().held_until.is_some();
            next.github.iter().map(is_held).collect()
        };
        // In another order, beside another one, and where something else of an account is changed.
        assert_eq!(
            held(&settings(&[("beta", "ghp_b"), ("new", "ghp_n"), ("acme", "ghp_a")], 900)),
            [true, false, true]
        );
        assert_eq!(held(&settings(&[("acme", "ghp_other"), ("beta", "ghp_b")], 900)), [false, true]);
        assert_eq!(held(&settings(&[("acme", "ghp_a"), ("beta", "ghp_b")], 800)), [true, true], "with other limits");
        let next = Clients::connect_after(&connected, &first, &clock).unwrap();
        let reader = next.github[0].0.all().remove(0);
        let run = reader.run(&"acme/web".parse().unwrap(), crate::ids::RunId(1)).await;
        assert!(matches!(run, Err(GithubError::Held { .. })));
        assert_eq!(reader.counts().requests, 0, "nothing is sent before its end");
    }

    #[test]
    fn accounts_with_one_token_are_told_and_others_not() {
        let account = |name: &str, token: &str, host: &str| GithubConfig {
            name: name.to_owned(),
            host: Some(host.to_owned()),
            token: Some(token.to_owned().into()),
            allowed_repos: vec![format!("{name}/web")],
            ..GithubConfig::default()
        };
        let token = || Some("ak-x".to_owned().into());
        let modal = ModalConfig { token_id: token(), token_secret: token(), ..ModalConfig::default() };
        let github = vec![
            account("a", "ghp_x", "github.com"),
            account("b", "ghp_y", "github.com"),
            account("c", "ghp_x", "ghe.example"),
            account("d", " ghp_x ", "github.com"),
        ];
        let settings = Settings::new(&Config { modal, github, ..Config::default() }, &Environment::new()).unwrap();
        let told: Vec<_> = doubled(&settings.github).into_iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        assert_eq!(told, [("a".to_owned(), "d".to_owned())]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_enterprise_server_tells_the_time_of_no_other_service() {
        let account = |name: &str, host: &str| GithubConfig {
            name: name.to_owned(),
            host: Some(host.to_owned()),
            token: Some("ghp_x".to_owned().into()),
            allowed_repos: vec!["acme/web".to_owned()],
            ..GithubConfig::default()
        };
        let token = || Some("ak-x".to_owned().into());
        let led = |github: Vec<GithubConfig>| {
            let modal = ModalConfig { token_id: token(), token_secret: token(), ..ModalConfig::default() };
            let settings = Settings::new(&Config { modal, github, ..Config::default() }, &Environment::new()).unwrap();
            let clock = Clock::scaled(chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::days(1), 1.0);
            let tells_all = |account: &GithubSettings| {
                let clock = clock.for_another_service();
                let own = Time::of(account, &settings).clock(&clock);
                let now = own.now();
                let learned: Vec<_> =
                    (0..2).map(|_| own.learn_date(now + chrono::TimeDelta::minutes(9), now)).collect();
                assert!(learned[1].is_some(), "two dates that agree are believed");
                !clock.skew().is_zero()
            };
            settings.github.iter().map(tells_all).collect::<Vec<_>>()
        };
        let (server, github) = (|| account("server", "ghe.example"), || account("gh", "github.com"));
        assert_eq!(led(vec![server(), github()]), [false, true]);
        assert_eq!(led(vec![server()]), [true]);
    }
}
