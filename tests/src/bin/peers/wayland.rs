//! A Wayland client that shows dma-bufs: one window, and buffers that others
//! made. It knows nothing of this crate but handles and frames.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use dmashare::frame::Frame;
use rustix::event::{PollFd, PollFlags, poll};
use wayland_client::globals::{GlobalListContents, registry_queue_init};
use wayland_client::protocol::{
    wl_buffer::{self, WlBuffer},
    wl_callback::{self, WlCallback},
    wl_compositor::WlCompositor,
    wl_registry::{self, WlRegistry},
    wl_surface::WlSurface,
};
use wayland_client::{Connection, Dispatch, EventQueue, QueueHandle, delegate_noop};
use wayland_protocols::wp::linux_dmabuf::zv1::client::{
    zwp_linux_buffer_params_v1::{self, Flags, ZwpLinuxBufferParamsV1},
    zwp_linux_dmabuf_v1::{self, ZwpLinuxDmabufV1},
};
use wayland_protocols::xdg::shell::client::{
    xdg_surface::{self, XdgSurface},
    xdg_toplevel::XdgToplevel,
    xdg_wm_base::{self, XdgWmBase},
};

use crate::inside::text;
use crate::launch::LONG;

/// What the compositor has said.
#[derive(Default)]
struct Said {
    /// Formats and modifiers that it takes.
    formats: Vec<(u32, u64)>,
    created: Option<WlBuffer>,
    failed: bool,
    /// The buffers that it does not need any more.
    released: Vec<WlBuffer>,
    configured: bool,
    shown: bool,
}

/// A connection with a window.
pub(crate) struct Client {
    queue: EventQueue<Said>,
    said: Said,
    dmabuf: ZwpLinuxDmabufV1,
    surface: WlSurface,
}

impl Client {
    /// A window, which is not shown before it has a picture.
    pub(crate) fn connect(socket: std::os::unix::net::UnixStream) -> Result<Client, String> {
        let connection = Connection::from_socket(socket).map_err(text)?;
        let (globals, queue) = registry_queue_init::<Said>(&connection).map_err(text)?;
        let handle = queue.handle();
        let compositor: WlCompositor = globals.bind(&handle, 4..=4, ()).map_err(text)?;
        let shell: XdgWmBase = globals.bind(&handle, 1..=1, ()).map_err(text)?;
        // The last version that names its modifiers by events.
        let dmabuf = globals.bind(&handle, 3..=3, ()).map_err(text)?;
        let surface = compositor.create_surface(&handle, ());
        let window = shell.get_xdg_surface(&surface, &handle, ());
        window.get_toplevel(&handle, ());
        surface.commit();
        let mut client = Client {
            queue,
            said: Said::default(),
            dmabuf,
            surface,
        };
        client.wait("configure", |said| said.configured)?;
        Ok(client)
    }

    /// Formats and modifiers that the compositor takes.
    pub(crate) fn formats(&self) -> &[(u32, u64)] {
        &self.said.formats
    }

    /// A buffer of the compositor's, of a frame in one dma-buf.
    pub(crate) fn import(&mut self, frame: &Frame, fd: BorrowedFd<'_>) -> Result<WlBuffer, String> {
        let handle = self.queue.handle();
        let params = self.dmabuf.create_params(&handle, ());
        let [high, low] = [frame.modifier >> 32, frame.modifier & 0xffff_ffff]
            .map(|half| u32::try_from(half).expect("half of it"));
        for (at, plane) in (0..).zip(&frame.planes) {
            params.add(fd, at, plane.offset, plane.stride, high, low);
        }
        let (width, height) = size(frame)?;
        params.create(width, height, frame.fourcc.0, Flags::empty());
        self.said.failed = false;
        self.wait("created or failed", |said| {
            said.created.is_some() || said.failed
        })?;
        params.destroy();
        let created = self.said.created.take();
        created.ok_or_else(|| "it failed to import the dma-buf".to_owned())
    }

    /// Shows it, and waits until the compositor has drawn.
    pub(crate) fn show(&mut self, buffer: &WlBuffer, frame: &Frame) -> Result<(), String> {
        let (width, height) = size(frame)?;
        self.surface.attach(Some(buffer), 0, 0);
        self.surface.damage_buffer(0, 0, width, height);
        self.surface.frame(&self.queue.handle(), ());
        self.surface.commit();
        self.said.shown = false;
        self.wait("a frame", |said| said.shown)
    }

    /// Waits until the compositor has released it.
    pub(crate) fn released(&mut self, buffer: &WlBuffer) -> Result<(), String> {
        let buffer = buffer.clone();
        self.wait("release", move |said| said.released.contains(&buffer))
    }

    fn wait(&mut self, what: &str, until: impl Fn(&Said) -> bool) -> Result<(), String> {
        let begun = Instant::now();
        while !until(&self.said) {
            let dispatched = self.queue.dispatch_pending(&mut self.said).map_err(text)?;
            if dispatched > 0 {
                continue;
            }
            self.queue.flush().map_err(text)?;
            let Some(guard) = self.queue.prepare_read() else {
                continue;
            };
            let left = LONG.saturating_sub(begun.elapsed());
            if left == Duration::ZERO {
                return Err(format!("the compositor does not say {what}"));
            }
            let fd = guard.connection_fd();
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            let left = left.try_into().map_err(text)?;
            if poll(&mut fds, Some(&left)).map_err(text)? > 0 {
                guard.read().map_err(|error| format!("{what}: {error}"))?;
            }
        }
        Ok(())
    }
}

fn size(frame: &Frame) -> Result<(i32, i32), String> {
    let width = frame.width.try_into().map_err(text)?;
    Ok((width, frame.height.try_into().map_err(text)?))
}

impl Dispatch<ZwpLinuxDmabufV1, ()> for Said {
    fn event(
        said: &mut Said,
        _: &ZwpLinuxDmabufV1,
        event: zwp_linux_dmabuf_v1::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Said>,
    ) {
        if let zwp_linux_dmabuf_v1::Event::Modifier {
            format,
            modifier_hi,
            modifier_lo,
        } = event
        {
            let modifier = u64::from(modifier_hi) << 32 | u64::from(modifier_lo);
            said.formats.push((format, modifier));
        }
    }
}

impl Dispatch<ZwpLinuxBufferParamsV1, ()> for Said {
    fn event(
        said: &mut Said,
        _: &ZwpLinuxBufferParamsV1,
        event: zwp_linux_buffer_params_v1::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Said>,
    ) {
        match event {
            zwp_linux_buffer_params_v1::Event::Created { buffer } => said.created = Some(buffer),
            _ => said.failed = true,
        }
    }

    wayland_client::event_created_child!(Said, ZwpLinuxBufferParamsV1, [
        zwp_linux_buffer_params_v1::EVT_CREATED_OPCODE => (WlBuffer, ()),
    ]);
}

impl Dispatch<WlBuffer, ()> for Said {
    fn event(
        said: &mut Said,
        buffer: &WlBuffer,
        event: wl_buffer::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Said>,
    ) {
        if let wl_buffer::Event::Release = event {
            said.released.push(buffer.clone());
        }
    }
}

impl Dispatch<WlCallback, ()> for Said {
    fn event(
        said: &mut Said,
        _: &WlCallback,
        event: wl_callback::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Said>,
    ) {
        said.shown |= matches!(event, wl_callback::Event::Done { .. });
    }
}

impl Dispatch<XdgSurface, ()> for Said {
    fn event(
        said: &mut Said,
        window: &XdgSurface,
        event: xdg_surface::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Said>,
    ) {
        if let xdg_surface::Event::Configure { serial } = event {
            window.ack_configure(serial);
            said.configured = true;
        }
    }
}

impl Dispatch<XdgWmBase, ()> for Said {
    fn event(
        _: &mut Said,
        shell: &XdgWmBase,
        event: xdg_wm_base::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Said>,
    ) {
        if let xdg_wm_base::Event::Ping { serial } = event {
            shell.pong(serial);
        }
    }
}

impl Dispatch<WlRegistry, GlobalListContents> for Said {
    fn event(
        _: &mut Said,
        _: &WlRegistry,
        _: wl_registry::Event,
        _: &GlobalListContents,
        _: &Connection,
        _: &QueueHandle<Said>,
    ) {
    }
}

delegate_noop!(Said: ignore WlCompositor);
delegate_noop!(Said: ignore WlSurface);
delegate_noop!(Said: ignore XdgToplevel);
