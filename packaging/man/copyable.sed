# Names and options can be copied from a page: no word is hyphenated or broken, no line is stretched, and what is written
# as "-" is one (in roff, "-" alone is a hyphen, at which a line may end).
/^\.TH/i\
.nr HY 0
/^\.TH/a\
.nh\
.ad l
/^\.SS/b minus
/^[.']/b
: minus
s/\\-/-/g
s/-/\\-/g
