//! The outcome as JSON.

use dmashare::negotiate::{Conflict, Nearest, Plan, Reach, Sync, Taker};
use serde::Serialize;

use super::form::{self, Form};

/// A plan or a conflict, and whose it is.
#[derive(Serialize)]
pub(super) struct Outcome {
    takers: Vec<Form>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Planned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<AtOdds>,
}

#[derive(Serialize)]
struct Planned {
    layout: String,
    layouts: Vec<String>,
    origin: String,
    planes: Option<Vec<Plane>>,
    bytes: Option<u64>,
    dma_buf: bool,
    contiguous: bool,
    below_4g: bool,
    hand_overs: Vec<HandOver>,
    reasons: Vec<String>,
}

#[derive(Serialize)]
struct Plane {
    offset: u32,
    stride: u32,
}

#[derive(Serialize)]
struct HandOver {
    from: String,
    to: String,
    by: &'static str,
}

#[derive(Serialize)]
struct AtOdds {
    over: String,
    takers: Vec<String>,
    why: String,
    nearest: Option<Converted>,
}

#[derive(Serialize)]
struct Converted {
    converter: String,
    before: Vec<String>,
    first: Planned,
    second: Planned,
    after: Vec<String>,
}

impl Outcome {
    pub(super) fn new(takers: &[Taker], outcome: &Result<Plan, Conflict>) -> Outcome {
        Outcome {
            takers: takers.iter().map(Form::of).collect(),
            plan: outcome.as_ref().ok().map(planned),
            conflict: outcome.as_ref().err().map(at_odds),
        }
    }
}

fn planned(plan: &Plan) -> Planned {
    let planes = plan.frame.as_ref().map(|frame| {
        let planes = frame.planes.iter().map(|plane| Plane {
            offset: plane.offset,
            stride: plane.stride,
        });
        planes.collect()
    });
    let hand_overs = plan.hand_overs.iter().map(|pair| HandOver {
        from: pair.from.clone(),
        to: pair.to.clone(),
        by: match pair.by {
            Sync::SYNC_FILE => "sync_file",
            Sync::IMPLICIT => "implicit",
            _ => "cpu",
        },
    });
    Planned {
        layout: form::text(&plan.layout),
        layouts: plan.layouts.iter().map(form::text).collect(),
        origin: plan.origin.to_string(),
        planes,
        bytes: plan.bytes,
        dma_buf: plan.dma_buf,
        contiguous: plan.contiguous,
        below_4g: plan.reach == Reach::Below4G,
        hand_overs: hand_overs.collect(),
        reasons: plan.reasons.clone(),
    }
}

fn at_odds(conflict: &Conflict) -> AtOdds {
    AtOdds {
        over: conflict.over.to_string(),
        takers: conflict.takers.iter().map(|t| t.name.clone()).collect(),
        why: conflict.why.clone(),
        nearest: conflict.nearest.as_deref().map(converted),
    }
}

fn converted(nearest: &Nearest) -> Converted {
    Converted {
        converter: nearest.converter.clone(),
        before: nearest.before.clone(),
        first: planned(&nearest.first),
        second: planned(&nearest.second),
        after: nearest.after.clone(),
    }
}
