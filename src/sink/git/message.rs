//! What a commit says: one line for people, and trailers by which each intent is found again.

use crate::model::{IntentType, Seq};
use crate::sink::{Delivery, Term};

/// Characters of a line that come from a document.
const TEXT_CHARS_MAX: usize = 256;

/// The name of an intent in the whole world, as the trailer has it.
pub fn intent_id(seq: Seq, term: Term<'_>) -> String {
    format!("{seq}@{}", term.ledger)
}

/// The message for all of a batch.
pub fn message(batch: &[&Delivery<'_>], term: Term<'_>) -> String {
    let mut text = match batch {
        [one] => format!("{}\n", deed(one)),
        all => {
            let deeds: Vec<String> = all.iter().map(|one| format!("- {}\n", deed(one))).collect();
            format!("Deliver {} intents\n\n{}", all.len(), deeds.concat())
        }
    };
    text.push('\n');
    for delivery in batch {
        text += &format!("Intent-Id: {}\n", intent_id(delivery.seq, term));
        text += &format!("Intent-Seq: {}\n", delivery.seq);
        if let Some(id) = &delivery.intent.correlation_id {
            text += &format!("Correlation-Id: {}\n", line(id));
        }
    }
    text += &format!("Intent-Epoch: {}\n", term.epoch);
    text
}

fn deed(delivery: &Delivery<'_>) -> String {
    let key = &delivery.package.key;
    match key.intent_type {
        IntentType::Scaling => format!("Scale {key} to {}", delivery.intent.replicas),
        IntentType::Deployment => format!("Deploy {key} with {}", delivery.intent.replicas),
        IntentType::Configuration => format!("Configure {key}"),
    }
}

/// One line whatever the text: a line break would begin a trailer that nobody gave.
fn line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(TEXT_CHARS_MAX).collect::<String>().trim().to_owned()
}
