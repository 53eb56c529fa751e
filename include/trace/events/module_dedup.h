/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM module_dedup

#if !defined(_TRACE_MODULE_DEDUP_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_MODULE_DEDUP_H

#include <linux/kdev_t.h>
#include <linux/sched.h>
#include <linux/tracepoint.h>

/* Kinds of what is loaded or requested, numbered as in kernel/module/dedup/trace.rs. */
#define show_module_dedup_kind(kind)						\
	__print_symbolic(kind, { 0, "file" }, { 1, "module" }, { 2, "request" })

/* The current task begins to wait for what the owner, another task, loads or requests. */
TRACE_EVENT(module_dedup_wait_begin,
	    TP_PROTO(unsigned int kind, const char *name, u32 dev, u64 ino, pid_t owner,
		     const char *comm),
	    TP_ARGS(kind, name, dev, ino, owner, comm),
	    TP_STRUCT__entry(__field(unsigned int, kind)
			     __field(u32, dev)
			     __field(u64, ino)
			     __field(pid_t, owner)
			     __string(name, name)
			     __string(comm, comm)),
	    TP_fast_assign(__entry->kind = kind;
			   __entry->dev = dev;
			   __entry->ino = ino;
			   __entry->owner = owner;
			   __assign_str(name);
			   __assign_str(comm);),
	    TP_printk("kind=%s name=%s dev=%u:%u ino=%llu owner=%s[%d]",
		      show_module_dedup_kind(__entry->kind), __get_str(name), MAJOR(__entry->dev),
		      MINOR(__entry->dev), __entry->ino, __get_str(comm), __entry->owner)
);

/*
 * The wait has ended with the result of the owner, with -EINTR because of a signal,
 * with -EDEADLK, with -ETIMEDOUT because the module did not join the list in time,
 * or with -EAGAIN because the owner has no result for others, so that the task
 * starts again.
 */
TRACE_EVENT(module_dedup_wait_end,
	    TP_PROTO(unsigned int kind, const char *name, u32 dev, u64 ino, pid_t owner,
		     const char *comm, int result, s64 waited_us),
	    TP_ARGS(kind, name, dev, ino, owner, comm, result, waited_us),
	    TP_STRUCT__entry(__field(unsigned int, kind)
			     __field(u32, dev)
			     __field(u64, ino)
			     __field(pid_t, owner)
			     __field(int, result)
			     __field(s64, waited_us)
			     __string(name, name)
			     __string(comm, comm)),
	    TP_fast_assign(__entry->kind = kind;
			   __entry->dev = dev;
			   __entry->ino = ino;
			   __entry->owner = owner;
			   __entry->result = result;
			   __entry->waited_us = waited_us;
			   __assign_str(name);
			   __assign_str(comm);),
	    TP_printk("kind=%s name=%s dev=%u:%u ino=%llu owner=%s[%d] result=%d waited_us=%lld",
		      show_module_dedup_kind(__entry->kind), __get_str(name), MAJOR(__entry->dev),
		      MINOR(__entry->dev), __entry->ino, __get_str(comm), __entry->owner,
		      __entry->result, __entry->waited_us)
);

DECLARE_EVENT_CLASS(module_dedup_reject,
		    TP_PROTO(unsigned int kind, const char *name, u32 dev, u64 ino, int error),
		    TP_ARGS(kind, name, dev, ino, error),
		    TP_STRUCT__entry(__field(unsigned int, kind)
				     __field(u32, dev)
				     __field(u64, ino)
				     __field(int, error)
				     __string(name, name)),
		    TP_fast_assign(__entry->kind = kind;
				   __entry->dev = dev;
				   __entry->ino = ino;
				   __entry->error = error;
				   __assign_str(name);),
		    TP_printk("kind=%s name=%s dev=%u:%u ino=%llu error=%d",
			      show_module_dedup_kind(__entry->kind), __get_str(name),
			      MAJOR(__entry->dev), MINOR(__entry->dev), __entry->ino,
			      __entry->error)
);

/* A load is rejected: a module of that name is live. */
DEFINE_EVENT(module_dedup_reject, module_dedup_already_loaded,
	     TP_PROTO(unsigned int kind, const char *name, u32 dev, u64 ino, int error),
	     TP_ARGS(kind, name, dev, ino, error)
);

/* A load is rejected: another load of the same file or name was pending. */
DEFINE_EVENT(module_dedup_reject, module_dedup_pending,
	     TP_PROTO(unsigned int kind, const char *name, u32 dev, u64 ino, int error),
	     TP_ARGS(kind, name, dev, ino, error)
);

/* A wait is rejected: it would have completed a cycle of waiting tasks. */
DEFINE_EVENT(module_dedup_reject, module_dedup_deadlock,
	     TP_PROTO(unsigned int kind, const char *name, u32 dev, u64 ino, int error),
	     TP_ARGS(kind, name, dev, ino, error)
);

#endif /* _TRACE_MODULE_DEDUP_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
