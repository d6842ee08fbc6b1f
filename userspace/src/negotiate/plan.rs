//! What suits all, and why.

use std::fmt;
use std::path::PathBuf;

use super::fit::{self, Fit, fit};
use super::{Backing, Layout, Memory, Origin, Picture, Reach, Source, Sync, Taker, prefer};
use crate::alloc::{AllocError, Allocate, DmaHeap, Dumb, Module, Request, Usage, Way};
use crate::buffer::Buffer;
use crate::frame::Frame;

/// A layout, and a way to allocate it, that suit every taker.
///
/// It prints as what it is in a line, and the reasons in one each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The format, and how its pixels lie.
    pub layout: Layout,
    /// All that this source could give to all takers, the best first: where its
    /// driver picks among modifiers, these are for it to pick from.
    pub layouts: Vec<Layout>,
    /// Where to allocate.
    pub origin: Origin,
    /// The picture, with strides and offsets that suit all; `None` where the
    /// driver that allocates decides on them. What it gives is then to be shown
    /// to each taker ([`Taker::accepts`]).
    pub frame: Option<Frame>,
    /// The bytes to allocate for it, at least.
    pub bytes: Option<u64>,
    /// Whether it is a dma-buf.
    pub dma_buf: bool,
    /// Whether someone needs it in one piece.
    pub contiguous: bool,
    /// Where it must lie.
    pub reach: Reach,
    /// How each taker hands over to the next one, in the order in which they
    /// were given.
    pub hand_overs: Vec<HandOver>,
    /// The sources that come before this one, and what kept each from giving
    /// this layout.
    pub passed_over: Vec<(Origin, String)>,
    /// Why it is as it is, a sentence each.
    pub reasons: Vec<String>,
    usage: Usage,
}

/// How one taker hands a buffer over to the next.
///
/// ```
/// use dmashare::alloc::probe;
/// use dmashare::negotiate::{Picture, Sync, Taker, negotiate, sources};
/// let takers = [Taker::cpu(), Taker::peer()];
/// let plan = negotiate(&Picture::new(8, 8), &takers, &sources(&probe()))?;
/// assert_eq!(plan.hand_overs[0].by, Sync::CPU);
/// assert_eq!(
///     plan.hand_overs[0].to_string(),
///     "from the CPU to a peer process: the process waits until the first is done"
/// );
/// # Ok::<(), dmashare::negotiate::Conflict>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandOver {
    /// Who had it.
    pub from: String,
    /// Who gets it.
    pub to: String,
    /// How the second waits for the first: one flag.
    pub by: Sync,
}

impl fmt::Display for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            Sync::SYNC_FILE => "a sync_file of the first is what the second waits for",
            Sync::IMPLICIT => "the drivers wait for the fences of the dma-buf",
            _ => "the process waits until the first is done",
        };
        write!(f, "from {} to {}: {by}", self.from, self.to)
    }
}

/// Why a plan cannot be allocated here.
///
/// ```
/// use dmashare::negotiate::{Origin, PlanError};
/// let elsewhere = PlanError::OfDriver(Origin::Gbm("/dev/dri/renderD128".into()));
/// assert!(elsewhere.to_string().contains("import::gbm"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A driver allocates it, in a way that is no part of
    /// [`alloc`](crate::alloc).
    #[error(
        "{0} decides on strides and size; allocate there (import::gbm) with the plan's layouts"
    )]
    OfDriver(Origin),
    /// The way failed.
    #[error(transparent)]
    Alloc(#[from] AllocError),
}

impl Plan {
    /// What to ask the way for.
    ///
    /// # Errors
    /// [`PlanError::OfDriver`] where a driver decides on strides and size.
    ///
    /// ```
    /// use dmashare::alloc::probe;
    /// use dmashare::negotiate::{Picture, Taker, negotiate, sources};
    /// let plan = negotiate(&Picture::new(8, 8), &[Taker::cpu()], &sources(&probe()))?;
    /// let request = plan.request()?.named("picture");
    /// assert_eq!((request.size, request.frame), (8 * 8 * 4, plan.frame));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request(&self) -> Result<Request, PlanError> {
        let (Some(frame), Some(bytes)) = (&self.frame, self.bytes) else {
            return Err(PlanError::OfDriver(self.origin.clone()));
        };
        let mut request = Request::new(bytes).for_usage(self.usage);
        request.frame = Some(frame.clone());
        // Of a card's own memory its driver decides.
        request.contiguous = self.contiguous && matches!(self.origin, Origin::Way(_));
        Ok(request)
    }

    /// Allocates it.
    ///
    /// # Errors
    /// [`PlanError::OfDriver`] where a driver decides on strides and size, and
    /// what the way says.
    ///
    /// ```
    /// use dmashare::alloc::probe;
    /// use dmashare::negotiate::{Picture, Taker, negotiate, sources};
    /// let plan = negotiate(&Picture::new(8, 8), &[Taker::cpu()], &sources(&probe()))?;
    /// let buffer = plan.allocate()?;
    /// assert!(buffer.size() >= 8 * 8 * 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allocate(&self) -> Result<Buffer, PlanError> {
        let request = self.request()?;
        let way: Box<dyn Allocate> = match &self.origin {
            Origin::Way(Way::DmaHeap) if self.contiguous => Box::new(DmaHeap::open_contiguous()?),
            Origin::Way(Way::Module) if self.reach == Reach::Below4G => {
                Box::new(Module::open()?.below_4g())
            }
            Origin::Way(way) => way.open()?,
            Origin::Dumb(card) => Box::new(Dumb::open(card)?),
            Origin::Gbm(_) => return Err(PlanError::OfDriver(self.origin.clone())),
        };
        Ok(way.allocate(&request)?)
    }

    /// What can be said of a buffer of `size` bytes that was allocated so, to
    /// hold against each taker.
    ///
    /// ```
    /// use dmashare::alloc::probe;
    /// use dmashare::negotiate::{Picture, Taker, negotiate, sources};
    /// let cpu = Taker::cpu();
    /// let plan = negotiate(&Picture::new(8, 8), &[cpu.clone()], &sources(&probe()))?;
    /// let buffer = plan.allocate()?;
    /// let frame = plan.frame.as_ref().unwrap();
    /// assert_eq!(cpu.accepts(frame, &plan.backing(buffer.size())), Ok(()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backing(&self, size: u64) -> Backing {
        Backing {
            size,
            dma_buf: self.dma_buf,
            mappable: self.usage.intersects(Usage::default()),
            maker: self.origin.node().map(PathBuf::from),
            contiguous: self.contiguous,
            reach: self.reach,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.frame, self.bytes) {
            (Some(frame), Some(bytes)) => {
                let strides = frame.planes.iter().map(|plane| plane.stride.to_string());
                let strides = strides.collect::<Vec<_>>().join(" and ");
                write!(
                    f,
                    "{}x{} {}, stride {strides}, {bytes} bytes",
                    frame.width, frame.height, self.layout
                )?;
            }
            _ => write!(f, "{}, in strides of the driver's choice", self.layout)?,
        }
        write!(f, ", from {}", self.origin)?;
        for reason in &self.reasons {
            write!(f, "\n- {reason}")?;
        }
        for hand_over in &self.hand_overs {
            write!(f, "\n- {hand_over}")?;
        }
        Ok(())
    }
}

/// The best that suits all; none where nothing does.
pub(super) fn make(picture: &Picture, takers: &[&Taker], sources: &[Source]) -> Option<Plan> {
    let mut order: Vec<Layout> = fit::layouts(sources).into_iter().collect();
    order.sort_by_cached_key(|layout| prefer::rank(picture, takers, *layout));
    let from = |layout, source| fit(picture, takers, layout, source);
    let (layout, at, fit) = order.iter().find_map(|layout| {
        let mut fits = sources.iter().enumerate();
        fits.find_map(|(at, source)| Some((*layout, at, from(*layout, source).ok()?)))
    })?;
    let source = &sources[at];
    let layouts = order
        .iter()
        .filter(|layout| from(**layout, source).is_ok())
        .copied()
        .collect();
    let passed_over: Vec<(Origin, String)> = sources[..at]
        .iter()
        .filter_map(|source| {
            let over = from(layout, source).err()?;
            Some((source.origin.clone(), over.of_source(takers).to_owned()))
        })
        .collect();
    let reasons = reasons(picture, takers, &order, layout, source, &fit, &passed_over);
    let mapped = takers.is_empty() || takers.iter().any(|taker| taker.memory == Memory::Any);
    let mut usage = Usage::empty();
    usage.set(Usage::default(), mapped);
    usage.set(
        Usage::DEVICE,
        takers.iter().any(|taker| taker.memory != Memory::Any),
    );
    let (frame, bytes) = fit.room.unzip();
    Some(Plan {
        layout,
        layouts,
        origin: source.origin.clone(),
        frame,
        bytes,
        dma_buf: source.dma_buf,
        contiguous: fit.contiguous,
        reach: fit.reach,
        hand_overs: hand_overs(takers, source),
        passed_over,
        reasons,
        usage,
    })
}

fn hand_overs(takers: &[&Taker], source: &Source) -> Vec<HandOver> {
    let by = |one: &Taker, other: &Taker| match one.sync & other.sync {
        both if both.contains(Sync::SYNC_FILE) => Sync::SYNC_FILE,
        // The fences are those of the dma-buf.
        both if both.contains(Sync::IMPLICIT) && source.dma_buf => Sync::IMPLICIT,
        _ => Sync::CPU,
    };
    let pairs = takers.windows(2).map(|pair| HandOver {
        from: pair[0].name.clone(),
        to: pair[1].name.clone(),
        by: by(pair[0], pair[1]),
    });
    pairs.collect()
}

fn reasons(
    picture: &Picture,
    takers: &[&Taker],
    order: &[Layout],
    layout: Layout,
    source: &Source,
    fit: &Fit,
    passed_over: &[(Origin, String)],
) -> Vec<String> {
    let mut reasons = vec![format!("{} layouts can be made here", order.len())];
    let mut left = order.to_vec();
    for taker in takers {
        let before = left.len();
        left.retain(|layout| fit::takes(taker, *layout));
        reasons.push(match left.len() {
            after if after == before => format!("{} takes them all", taker.name),
            _ => format!("{} leaves {}", taker.name, prefer::few(&left)),
        });
    }
    reasons.push(match left.len() {
        1 => format!("{layout} is the one that is left"),
        _ => format!("{layout}: {}", prefer::why(picture, takers, layout)),
    });
    let mut forced = |what: &str, align: fn(&Taker) -> u32| {
        let who = takers.iter().filter(|taker| align(taker) > 1);
        let who: Vec<String> = who
            .map(|taker| format!("{} ({})", taker.name, align(taker)))
            .collect();
        if !who.is_empty() && fit.room.is_some() {
            reasons.push(format!("{what} by {}", who.join(", ")));
        }
    };
    forced("strides are aligned", |taker| taker.stride_align);
    forced("planes are aligned", |taker| taker.offset_align);
    forced("there is room for groups of rows", |taker| taker.rows_align);
    let names = |is_it: fn(&Taker) -> bool| {
        let who = takers.iter().filter(|taker| is_it(taker));
        who.map(|taker| taker.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    if source.stride_align > 1 && fit.room.is_some() {
        reasons.push(format!(
            "{} wants strides of multiples of {} bytes",
            source.origin, source.stride_align
        ));
    }
    if fit.contiguous {
        reasons.push(format!("in one piece for {}", names(|t| t.contiguous)));
    }
    if fit.reach == Reach::Below4G {
        let who = names(|taker| taker.reach == Reach::Below4G);
        reasons.push(format!("below 4 GiB for {who}"));
    }
    for (origin, why) in passed_over {
        reasons.push(format!("not from {origin}: {why}"));
    }
    reasons
}
