# SPDX-License-Identifier: GPL-2.0
"""Shows duplicate module loads, what they cost and what to do about them."""
