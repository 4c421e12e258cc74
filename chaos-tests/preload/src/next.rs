//! The C library's own functions, behind those that stand before them here.

/// The function of that name and type, found once. None: this C library has none.
macro_rules! next {
    ($name:ident: $type:ty) => {{
        static FOUND: std::sync::atomic::AtomicPtr<libc::c_void> =
            std::sync::atomic::AtomicPtr::new(std::ptr::null_mut());
        let mut found = FOUND.load(std::sync::atomic::Ordering::Acquire);
        if found.is_null() {
            let name = concat!(stringify!($name), "\0");
            // SAFETY: a string that ends with a zero.
            found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast()) };
            FOUND.store(found, std::sync::atomic::Ordering::Release);
        }
        // SAFETY: null is `None`; otherwise the C library's function of that name, whose type is given.
        unsafe { std::mem::transmute::<*mut libc::c_void, Option<$type>>(found) }
    }};
}

pub(crate) use next;
