"""Other additive methods: scales, edits of hidden states, networks beside a frozen backbone."""
