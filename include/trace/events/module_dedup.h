/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM module_dedup

#if !defined(_TRACE_MODULE_DEDUP_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_MODULE_DEDUP_H

#include <linux/kdev_t.h>
#include <linux/sched.h>
#include <linux/tracepoint.h>

/* What is loaded or requested; kernel/module/dedup/trace.rs has the same numbers. */
#define show_module_dedup_kind(kind)						\
	__print_symbolic(kind, { 0, "file" }, { 1, "module" }, { 2, "request" })

/* A task begins to wait for what another one, the owner, loads or requests. */
TRACE_EVENT(module_dedup_wait,
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
 * It waits no more: for the result of the owner, because a signal came (-EINTR), or
 * because the owner left, so that it starts again (-EAGAIN).
 */
TRACE_EVENT(module_dedup_done,
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

/* A load, or a wait for one or for a request, is refused. */
TRACE_EVENT(module_dedup_refused,
	    TP_PROTO(unsigned int kind, const char *name, u32 dev, u64 ino, unsigned int reason,
		     int error),
	    TP_ARGS(kind, name, dev, ino, reason, error),
	    TP_STRUCT__entry(__field(unsigned int, kind)
			     __field(u32, dev)
			     __field(u64, ino)
			     __field(unsigned int, reason)
			     __field(int, error)
			     __string(name, name)),
	    TP_fast_assign(__entry->kind = kind;
			   __entry->dev = dev;
			   __entry->ino = ino;
			   __entry->reason = reason;
			   __entry->error = error;
			   __assign_str(name);),
	    TP_printk("kind=%s name=%s dev=%u:%u ino=%llu reason=%s error=%d",
		      show_module_dedup_kind(__entry->kind), __get_str(name), MAJOR(__entry->dev),
		      MINOR(__entry->dev), __entry->ino,
		      __print_symbolic(__entry->reason,
				       { 0, "late" }, { 1, "pending" }, { 2, "circle" }),
		      __entry->error)
);

#endif /* _TRACE_MODULE_DEDUP_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
