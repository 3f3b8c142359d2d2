"""What all HTML pages have in common: head, colours, and a policy that forbids requests and other scripts."""
