// SPDX-License-Identifier: GPL-2.0

#include <linux/pci.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

__rust_helper int rust_helper_virtio_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
					      struct virtqueue *vqs[],
					      struct virtqueue_info vqs_info[],
					      struct irq_affinity *desc)
{
	return virtio_find_vqs(vdev, nvqs, vqs, vqs_info, desc);
}

__rust_helper void rust_helper_virtio_device_ready(struct virtio_device *dev)
{
	virtio_device_ready(dev);
}

__rust_helper void rust_helper___virtio_clear_bit(struct virtio_device *vdev, unsigned int fbit)
{
	__virtio_clear_bit(vdev, fbit);
}

__rust_helper void rust_helper___virtio_set_bit(struct virtio_device *vdev, unsigned int fbit)
{
	__virtio_set_bit(vdev, fbit);
}

__rust_helper int rust_helper_virtqueue_set_affinity(struct virtqueue *vq,
						     const struct cpumask *cpu_mask)
{
	return virtqueue_set_affinity(vq, cpu_mask);
}

__rust_helper bool rust_helper_virtio_device_is_present(struct virtio_device *vdev)
{
	struct device *parent = vdev->dev.parent;

	return !dev_is_pci(parent) || pci_device_is_present(to_pci_dev(parent));
}
