//! Renewed files: looked at every few seconds and on SIGHUP, and used for all connections that are made from then on.
//!
//! What counts is what the files hold, not when they were written: a mounted secret is swapped by a link. Files that are
//! not usable change nothing; half of a renewal looks like that for a moment. Connections that stand go on with what
//! they began with. A renewed certificate that speaks for somebody else is not taken.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::error::TlsError;
use super::material::{Contents, Material};
use super::{Mode, Tls, Transport, metrics};
use crate::{OnFailure, SharedClock, Tasks};

/// Whoever renews certificates by hand should hear of it a week before.
const WARN_BEFORE_SECONDS: i64 = 7 * 86_400;
/// How often to say it again.
const WARN_EVERY: Duration = Duration::from_secs(6 * 3600);

impl Transport {
    /// Reads the files again. True if they had changed and are in use now; on an error those before still are. Blocks.
    pub fn reload(&self) -> Result<bool, TlsError> {
        match &self.0 {
            Mode::PlainText { .. } => Ok(false),
            Mode::Tls(tls) => tls.reload(Contents::read(&tls.files)?),
        }
    }

    /// Reads the files again every `interval` and upon SIGHUP, and tells when they expire, until `tasks` are cancelled.
    pub fn watch(&self, interval: Duration, tasks: &Tasks, clock: &SharedClock) {
        let Mode::Tls(tls) = &self.0 else { return };
        let watcher = Watcher {
            tls: Arc::clone(tls),
            unusable: None,
            warned: None,
        };
        let (cancelled, clock) = (tasks.cancellation().clone(), clock.clone());
        tasks.spawn("tls-reload", OnFailure::Log, async move {
            tokio::select! { biased;
                () = cancelled.cancelled() => Ok(()),
                ended = watcher.run(interval, clock) => ended,
            }
        });
    }
}

impl Tls {
    fn reload(&self, contents: Contents) -> Result<bool, TlsError> {
        let present = self.current.load_full();
        if present.is_of(&contents) {
            return Ok(false);
        }
        let renewed = Material::of(contents, &self.files)?;
        if renewed.identity != present.identity {
            return Err(TlsError::OtherIdentity {
                path: self.files.certificate.clone(),
                own: Box::new(present.identity.clone()),
                new: Box::new(renewed.identity),
            });
        }
        self.current.store(Arc::new(renewed));
        Ok(true)
    }
}

struct Watcher {
    tls: Arc<Tls>,
    /// What was wrong when it was said last.
    unusable: Option<String>,
    /// When it was said last that something expires.
    warned: Option<Duration>,
}

impl Watcher {
    async fn run(mut self, interval: Duration, clock: SharedClock) -> Result<(), std::io::Error> {
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            self.tell_expiry(&clock);
            tokio::select! {
                () = clock.sleep(interval) => {}
                _ = hangup.recv() => info!("SIGHUP: reading the certificates again"),
            }
            let tls = Arc::clone(&self.tls);
            let looked =
                tokio::task::spawn_blocking(move || tls.reload(Contents::read(&tls.files)?));
            match looked.await {
                Ok(Ok(changed)) => self.on_read(changed),
                Ok(Err(error)) => self.on_unusable(chain(&error)),
                Err(error) => self.on_unusable(error.to_string()),
            }
        }
    }

    fn on_read(&mut self, changed: bool) {
        if changed {
            metrics::reloaded();
            self.warned = None;
            let now = self.tls.current.load();
            info!(identity = %now.identity, expires = now.expires, "renewed certificates are in use");
        }
        self.unusable = None;
    }

    fn on_unusable(&mut self, reason: String) {
        metrics::reload_failed();
        if self.unusable.as_ref() != Some(&reason) {
            error!(
                reason,
                "the certificates have changed and cannot be used; going on with those before"
            );
            self.unusable = Some(reason);
        }
    }

    fn tell_expiry(&mut self, clock: &SharedClock) {
        let material = self.tls.current.load();
        let (certificate, ca) = (material.expires, material.ca_expires);
        metrics::expires(certificate, ca);
        let left = certificate.min(ca).saturating_sub(clock.now_ms() / 1000);
        let now = clock.monotonic();
        let lately = |at: Duration| now.saturating_sub(at) < WARN_EVERY;
        if left >= WARN_BEFORE_SECONDS || self.warned.is_some_and(lately) {
            return;
        }
        self.warned = Some(now);
        let what = if certificate <= ca {
            "certificate"
        } else {
            "CA"
        };
        match left {
            1.. => warn!(
                what,
                hours = left / 3600,
                "expires soon; renew it, or nobody can connect any more"
            ),
            _ => error!(
                what,
                "has expired: no new connections are possible; renew it"
            ),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
