//! Decides what is written for one intent. Pure.

use crate::config::HpaRule;
use crate::model::Code;
use crate::sink::kubectl::object::{Autoscaler, Seen};
use crate::sink::{Fault, Retry};

/// What is to be written, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The minimum that an autoscaler is given first.
    pub floor: Option<Floor>,
    /// The replicas that there are to be.
    pub to: u32,
    /// The autoscaler that has, or is given, that minimum, and decides above it.
    pub floor_of: Option<String>,
    /// The autoscaler whose bounds were kept.
    pub clamped_by: Option<String>,
}

/// A new minimum of an autoscaler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    pub autoscaler: Autoscaler,
    pub min: u32,
}

impl Plan {
    /// Whether all is as it should be.
    pub fn is_nothing(&self, seen: &Seen) -> bool {
        self.floor.is_none() && self.to == seen.replicas
    }
}

/// What to write so that `what`, as in `deployments ran-a/web`, has `wanted` replicas.
pub fn plan(
    what: &str,
    seen: &Seen,
    autoscalers: &[Autoscaler],
    wanted: u32,
    rule: HpaRule,
) -> Result<Plan, Fault> {
    let parked = |code, message| Fault { code, message, retry: Retry::Never };
    if seen.is_terminating {
        return Err(parked(Code::TargetTerminating, format!("{what} is being deleted")));
    }
    let conflict = |autoscaler: &Autoscaler, why: &str| {
        let Autoscaler { name, min, max, .. } = autoscaler;
        let message = format!(
            "the HorizontalPodAutoscaler `{name}` keeps {what} between {min} and {max} replicas{why}"
        );
        parked(Code::HpaConflict, message)
    };
    let plain = Plan { floor: None, to: wanted, floor_of: None, clamped_by: None };
    let autoscaler = match autoscalers {
        [] => return Ok(plain),
        [one] => one,
        [one, other, ..] => {
            let why = format!(", and so does `{}`: one of the two has to go", other.name);
            return Err(conflict(one, &why));
        }
    };
    match rule {
        HpaRule::Refuse => Err(conflict(autoscaler, "")),
        HpaRule::Floor if wanted > autoscaler.max => {
            Err(conflict(autoscaler, &format!(", and {wanted} is more")))
        }
        HpaRule::Floor => {
            let is_there = autoscaler.min == wanted;
            let floor = (!is_there).then(|| Floor { autoscaler: autoscaler.clone(), min: wanted });
            // Above its minimum the autoscaler decides.
            let (to, floor_of) = (seen.replicas.max(wanted), Some(autoscaler.name.clone()));
            Ok(Plan { floor, to, floor_of, clamped_by: None })
        }
        HpaRule::Clamp => {
            let to = wanted.clamp(autoscaler.min.min(autoscaler.max), autoscaler.max);
            let clamped_by = (to != wanted).then(|| autoscaler.name.clone());
            Ok(Plan { to, clamped_by, ..plain })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hpa(min: u32, max: u32) -> Autoscaler {
        Autoscaler { name: "h".to_owned(), resource_version: "1".to_owned(), min, max }
    }

    #[track_caller]
    fn check(
        hpas: &[Autoscaler],
        wanted: u32,
        rule: HpaRule,
        expected: Result<(Option<u32>, u32), &str>,
    ) {
        let seen = Seen { replicas: 3, ..Seen::default() };
        let planned = plan("deployments a/web", &seen, hpas, wanted, rule);
        let planned =
            planned.map(|plan| (plan.floor.map(|floor| floor.min), plan.to)).map_err(|fault| {
                assert_eq!((fault.code, fault.retry), (Code::HpaConflict, Retry::Never));
                fault.message
            });
        assert_eq!(planned, expected.map_err(str::to_owned));
    }

    #[test]
    fn an_autoscaler_is_respected_as_the_rule_says() {
        use HpaRule::{Clamp, Floor, Refuse};
        let says =
            "the HorizontalPodAutoscaler `h` keeps deployments a/web between 2 and 5 replicas";
        check(&[], 9, Refuse, Ok((None, 9)));
        check(&[hpa(2, 5)], 4, Refuse, Err(says));
        check(&[hpa(2, 5)], 4, Floor, Ok((Some(4), 4)));
        check(&[hpa(4, 5)], 4, Floor, Ok((None, 4)));
        check(&[hpa(2, 5)], 1, Floor, Ok((Some(1), 3)));
        check(&[hpa(2, 5)], 9, Floor, Err(&format!("{says}, and 9 is more")));
        check(&[hpa(2, 5)], 4, Clamp, Ok((None, 4)));
        check(&[hpa(2, 5)], 9, Clamp, Ok((None, 5)));
        check(&[hpa(2, 5)], 1, Clamp, Ok((None, 2)));
        let two = format!("{says}, and so does `h`: one of the two has to go");
        check(&[hpa(2, 5), hpa(1, 9)], 4, Clamp, Err(&two));
    }

    #[test]
    fn what_is_being_deleted_is_left_alone() {
        let seen = Seen { is_terminating: true, ..Seen::default() };
        let fault = plan("deployments a/web", &seen, &[], 3, HpaRule::Refuse).unwrap_err();
        assert_eq!(fault.code, Code::TargetTerminating);
        assert_eq!(fault.message, "deployments a/web is being deleted");
    }
}
