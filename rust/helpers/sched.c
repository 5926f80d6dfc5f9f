// SPDX-License-Identifier: GPL-2.0

#include <linux/kernel_stat.h>
#include <linux/pgtable.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/tracepoint.h>
#include <linux/uaccess.h>

__rust_helper struct kernel_stat *rust_helper_kstat_cpu(int cpu)
{
	return &kstat_cpu(cpu);
}

__rust_helper bool rust_helper_cpu_possible(unsigned int cpu)
{
	return cpu_possible(cpu);
}

__rust_helper bool rust_helper_cpu_online(unsigned int cpu)
{
	return cpu_online(cpu);
}

__rust_helper int rust_helper_raw_spin_trylock_irqsave(raw_spinlock_t *lock, unsigned long *flags)
{
	return raw_spin_trylock_irqsave(lock, *flags);
}

__rust_helper void rust_helper_raw_spin_unlock_irqrestore(raw_spinlock_t *lock, unsigned long flags)
{
	raw_spin_unlock_irqrestore(lock, flags);
}

/*
 * Reads a word of the kernel that may not be there. Addresses of users are refused, and with them all that are not canonical:
 * those of the kernel that are not lie below PAGE_OFFSET as well.
 */
__rust_helper bool rust_helper_read_kernel_word(unsigned long *word, const unsigned long *at)
{
	if ((unsigned long)at < PAGE_OFFSET)
		return false;

	__get_kernel_nofault(word, at, unsigned long, fault);
	return true;
fault:
	return false;
}

/* Whether modules, and code that the kernel makes while it runs, may lie there; the kernel itself does not. */
__rust_helper bool rust_helper_module_may_be_at(unsigned long address)
{
	return address >= MODULES_VADDR && address < MODULES_END;
}

/* Whether an entry of a list has neighbours, which may not be there, that both lead to it. */
__rust_helper bool rust_helper_list_node_is_linked(const struct list_head *node)
{
	const struct list_head *next = node->next, *prev = node->prev;
	unsigned long from_next, from_prev;

	if ((unsigned long)next < PAGE_OFFSET || (unsigned long)prev < PAGE_OFFSET)
		return false;

	__get_kernel_nofault(&from_next, &next->prev, unsigned long, fault);
	__get_kernel_nofault(&from_prev, &prev->next, unsigned long, fault);
	return from_next == (unsigned long)node && from_prev == (unsigned long)node && next != node;
fault:
	return false;
}

/*
 * Copies the entries of a list, whose links are at the offset @node of each, as far as there is @room. Returns how many there are, more than
 * @room if there are more, or a negative number if a link leads to where there is no memory.
 */
__rust_helper long rust_helper_copy_list(const struct list_head *head, size_t node, void **to, size_t room)
{
	const struct list_head *entry = head->next;
	unsigned long next;
	size_t n;

	for (n = 0; entry != head; n++) {
		if ((unsigned long)entry < PAGE_OFFSET)
			return -EFAULT;
		if (n == room)
			return room + 1;
		to[n] = (void *)entry - node;
		__get_kernel_nofault(&next, &entry->next, unsigned long, fault);
		entry = (struct list_head *)next;
	}
	return n;
fault:
	return -EFAULT;
}

__rust_helper void rust_helper_tracepoint_synchronize_unregister(void)
{
	tracepoint_synchronize_unregister();
}
