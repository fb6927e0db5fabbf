package desktop

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Sheet is a picture of pictures, with words between them. It grows downwards.
type Sheet struct {
	canvas *image.RGBA
	words  []string // for convert(1)
}

const (
	// sheetTimeout bounds the writing of a sheet, which takes a second or two.
	sheetTimeout = time.Minute
	// TextHeight is that of a line of a sheet's words, in pixels.
	TextHeight = 16
	// baseline is how far below the top of a line its letters stand.
	baseline = 12
)

// NewSheet makes an empty sheet of a width in pixels.
func NewSheet(width int) *Sheet { return &Sheet{canvas: image.NewRGBA(image.Rect(0, 0, width, 0))} }

// Put puts a picture at a place.
func (s *Sheet) Put(picture image.Image, at image.Point) {
	place := image.Rectangle{at, at.Add(picture.Bounds().Size())}
	s.reach(place.Max.Y)
	draw.Draw(s.canvas, place, picture, picture.Bounds().Min, draw.Over)
}

// Write writes a line of words, its top left corner at a place.
func (s *Sheet) Write(text string, at image.Point) {
	s.reach(at.Y + TextHeight)
	s.words = append(s.words, "-annotate", "+"+strconv.Itoa(at.X)+"+"+strconv.Itoa(at.Y+baseline), literal.Replace(text))
}

// literal keeps ImageMagick from filling words in, or reading them from files: its "Format and Print Image Properties".
var literal = strings.NewReplacer(`\`, `\\`, "%", "%%", "@", `\@`)

// reach makes the sheet at least so high.
func (s *Sheet) reach(height int) {
	if height <= s.canvas.Rect.Max.Y {
		return
	}
	taller := image.NewRGBA(image.Rect(0, 0, s.canvas.Rect.Dx(), height))
	draw.Draw(taller, taller.Rect, image.NewUniform(color.White), image.Point{}, draw.Src)
	draw.Draw(taller, s.canvas.Rect, s.canvas, image.Point{}, draw.Src)
	s.canvas = taller
}

// Save writes the sheet as a PNG with a palette.
func (s *Sheet) Save(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, sheetTimeout)
	defer cancel()
	var canvas bytes.Buffer
	if err := png.Encode(&canvas, s.canvas); err != nil {
		return fmt.Errorf("sheet: %w", err)
	}
	args := append([]string{"png:-", "-font", "DejaVu-Sans", "-pointsize", "12", "-fill", "black"}, s.words...)
	cmd := exec.CommandContext(ctx, "convert", append(args, "+dither", "-colors", "255", "-strip", "png8:"+path)...)
	cmd.Stdin = &canvas
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sheet: write %s: %w: %s", path, err, out)
	}
	return nil
}
