//! From layers to the checked configuration: what concerns several keys, or the world outside.

use std::path::PathBuf;
use std::time::Duration;

use crate::breaker;
use crate::compose;
use crate::config::layer::{Layers, Origin};
use crate::config::sinks;
use crate::config::value::Value;
use crate::config::{Config, Error, Intake, Overrides, Watch};
use crate::model::Layout;
use crate::retry;
use crate::schema::{Glob, NameRule, Policy, ReplicaBound};

/// Checks what the layers say together; `layers` have been filled.
pub fn check(layers: &Layers, overrides: &Overrides) -> Result<Config, Error> {
    Ok(Config {
        layout: Layout {
            inbox: required(layers, "inbox"),
            work: required(layers, "work"),
            processed: required(layers, "processed"),
            failed: required(layers, "failed"),
            status: required(layers, "status"),
            marker: required(layers, "spool").join(".intentd"),
        },
        state_dir: required(layers, "state_dir"),
        sinks: sinks::check(layers)?,
        schema: layers.path("schema"),
        log_level: layers.text("log_level").expect(DEFAULT),
        log_format: layers.text("log_format").expect(DEFAULT),
        accept_restored_ledger: overrides.accept_restored_ledger,
        allow_network_filesystem: layers.is_set("allow_network_filesystem"),
        drain: time(layers, "drain"),
        intake: Intake {
            size_bytes_max: layers.number("intake.size_bytes_max").expect(DEFAULT),
            owners: owners(layers)?,
            patterns: patterns(layers)?,
            workers: layers.number("intake.workers").expect(DEFAULT) as usize,
        },
        settle_lease: layers.is_set("settle.lease"),
        settle_quiet: time(layers, "settle.quiet"),
        watch: Watch {
            poll: layers.is_set("watch.poll"),
            poll_interval: time(layers, "watch.poll_interval"),
            rescan: time(layers, "watch.rescan"),
        },
        policy: policy(layers)?,
        compose: compose_settings(layers)?,
        retry: retry_policy(layers)?,
        breaker: breaker_policy(layers)?,
    })
}

const DEFAULT: &str = "the key has a default";

fn required(layers: &Layers, key: &str) -> PathBuf {
    layers.path(key).expect(DEFAULT)
}

fn time(layers: &Layers, key: &str) -> Duration {
    layers.time(key).expect(DEFAULT)
}

fn retry_policy(layers: &Layers) -> Result<retry::Policy, Error> {
    let retry = retry::Policy {
        budget: time(layers, "retry.budget"),
        first: time(layers, "retry.first"),
        max: time(layers, "retry.max"),
    };
    match retry.first > retry.max {
        true => Err(order(layers, "retry.first", "retry.max")),
        false => Ok(retry),
    }
}

fn breaker_policy(layers: &Layers) -> Result<breaker::Policy, Error> {
    let count = |key| layers.number(key).expect(DEFAULT) as usize;
    let policy = breaker::Policy {
        window: count("breaker.window"),
        failures_percent: count("breaker.failures"),
        pause: time(layers, "breaker.pause"),
        pause_max: time(layers, "breaker.pause_max"),
    };
    match policy.pause > policy.pause_max {
        true => Err(order(layers, "breaker.pause", "breaker.pause_max")),
        false => Ok(policy),
    }
}

fn compose_settings(layers: &Layers) -> Result<compose::Settings, Error> {
    let read = |path: PathBuf| {
        std::fs::read_to_string(&path).map_err(|source| Error::Template { path, source })
    };
    Ok(compose::Settings {
        deployment_image: layers.text("compose.deployment_image"),
        deployment_template: layers.path("compose.deployment_template").map(read).transpose()?,
    })
}

fn patterns(layers: &Layers) -> Result<Vec<String>, Error> {
    let patterns = layers.list("intake.patterns");
    match NameRule::new(&patterns) {
        Ok(_) => Ok(patterns),
        Err(error) => Err(wrong(layers, "intake.patterns", format!("a list of patterns: {error}"))),
    }
}

fn policy(layers: &Layers) -> Result<Policy, Error> {
    let glob = |key: &'static str, text: &str| {
        text.parse::<Glob>()
            .map_err(|error| wrong(layers, key, format!("a list of patterns: {error}")))
    };
    let globs = |key: &'static str| {
        layers.list(key).iter().map(|text| glob(key, text)).collect::<Result<Vec<_>, _>>()
    };
    let count = |key| layers.number(key).map(|count| count as u32);
    let mut replica_bounds = Vec::new();
    if let Some((Value::Bounds(bounds), _)) = layers.values.get("policy.bounds") {
        for bound in bounds {
            replica_bounds.push(ReplicaBound {
                namespace: glob("policy.bounds", &bound.namespace)?,
                target: glob("policy.bounds", &bound.target)?,
                min: bound.min,
                max: bound.max,
            });
        }
    }
    let (min, max) = (count("policy.replicas_min"), count("policy.replicas_max"));
    if min > max && max.is_some() {
        return Err(order(layers, "policy.replicas_min", "policy.replicas_max"));
    }
    Ok(Policy {
        allowed_namespaces: globs("policy.allowed_namespaces")?,
        denied_namespaces: globs("policy.denied_namespaces")?,
        allowed_targets: globs("policy.allowed_targets")?,
        denied_targets: globs("policy.denied_targets")?,
        replicas_min: min,
        replicas_max: max,
        replica_bounds,
    })
}

/// User ids from numbers, or from names as the system's list has them.
fn owners(layers: &Layers) -> Result<Vec<u32>, Error> {
    let named = layers.list("intake.owners");
    let passwd = match named.iter().all(|user| user.parse::<u32>().is_ok()) {
        true => String::new(),
        false => std::fs::read("/etc/passwd")
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|source| Error::Users { source })?,
    };
    let id = |user: &String| {
        user.parse().ok().or_else(|| user_id(&passwd, user)).ok_or_else(|| Error::User {
            user: user.clone(),
            origin: layers.origin("intake.owners"),
        })
    };
    named.iter().map(id).collect()
}

/// The id that a list in the form of `/etc/passwd` gives a user.
fn user_id(passwd: &str, user: &str) -> Option<u32> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
    line.split(':').nth(2)?.parse().ok()
}

fn order(layers: &Layers, first: &'static str, second: &'static str) -> Error {
    // The one that was set is the one to mend.
    let origin = match layers.origin(first) {
        Origin::Default => layers.origin(second),
        set => set,
    };
    Error::Order { first, second, origin }
}

pub(super) fn wrong(layers: &Layers, key: &str, expected: String) -> Error {
    Error::Value { key: key.to_owned(), origin: layers.origin(key), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let passwd = "root:x:0:0::/:/bin/sh\nran:x:1001:100::/:\nra:x:1002:100::/:\nodd\n";
        assert_eq!(user_id(passwd, "ra"), Some(1002));
        assert_eq!(user_id(passwd, "ran"), Some(1001));
        assert_eq!(user_id(passwd, "r"), None);
        assert_eq!(user_id(passwd, "odd"), None);
    }
}
